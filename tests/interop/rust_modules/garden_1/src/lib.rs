//! A garden, in Rust of 1.x: every column type, every scan of an index, every counter, rules, timers, events.

#[cfg(feature = "later")]
mod later;

use spacetimedb::sats::{i256, u256};
use spacetimedb::{
    client_visibility_filter, log_stopwatch::LogStopwatch, reducer, table, ConnectionId, Filter, Identity,
    ReducerContext, ScheduleAt, SpacetimeType, Table, TimeDuration, Timestamp,
};
use std::time::Duration;

#[derive(SpacetimeType, Clone, Debug, PartialEq)]
pub enum Colour {
    Red,
    Green,
    Blue,
}
#[derive(SpacetimeType, Clone, Debug, PartialEq)]
pub enum Shape {
    Bed(u32),
    Label(String),
    Nothing,
}
#[derive(SpacetimeType, Clone, Debug, PartialEq)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

/// Every column type.
#[table(name = every, public)]
#[derive(Clone, PartialEq)]
pub struct Every {
    #[primary_key]
    pub id: u32,
    pub b: bool,
    pub i8_: i8,
    pub u8_: u8,
    pub i16_: i16,
    pub u16_: u16,
    pub i32_: i32,
    pub u32_: u32,
    pub i64_: i64,
    pub u64_: u64,
    pub i128_: i128,
    pub u128_: u128,
    pub i256_: i256,
    pub u256_: u256,
    pub f32_: f32,
    pub f64_: f64,
    pub s: String,
    pub bytes: Vec<u8>,
    pub identity: Identity,
    pub connection: ConnectionId,
    pub at: Timestamp,
    pub lasts: TimeDuration,
    pub due: ScheduleAt,
    pub colour: Colour,
    pub shape: Shape,
    pub point: Point,
    pub maybe: Option<u32>,
    pub maybe_text: Option<String>,
    pub numbers: Vec<i32>,
    pub texts: Vec<String>,
    pub points: Vec<Point>,
}

#[table(name = plant, public, index(name = by_kind_height, btree(columns = [kind, height])))]
#[derive(Clone)]
pub struct Plant {
    #[primary_key]
    #[auto_inc]
    pub id: u64,
    #[unique]
    pub name: String,
    #[index(btree)]
    pub kind: u32,
    pub height: i32,
    pub alive: bool,
}

#[table(name = count_i8, public)]
pub struct CountI8 {
    #[primary_key]
    #[auto_inc]
    pub id: i8,
    pub n: u32,
}
#[table(name = count_u8, public)]
pub struct CountU8 {
    #[primary_key]
    #[auto_inc]
    pub id: u8,
    pub n: u32,
}
#[table(name = count_i16, public)]
pub struct CountI16 {
    #[primary_key]
    #[auto_inc]
    pub id: i16,
    pub n: u32,
}
#[table(name = count_u16, public)]
pub struct CountU16 {
    #[primary_key]
    #[auto_inc]
    pub id: u16,
    pub n: u32,
}
#[table(name = count_i32, public)]
pub struct CountI32 {
    #[primary_key]
    #[auto_inc]
    pub id: i32,
    pub n: u32,
}
#[table(name = count_u32, public)]
pub struct CountU32 {
    #[primary_key]
    #[auto_inc]
    pub id: u32,
    pub n: u32,
}
#[table(name = count_i64, public)]
pub struct CountI64 {
    #[primary_key]
    #[auto_inc]
    pub id: i64,
    pub n: u32,
}
#[table(name = count_u64, public)]
pub struct CountU64 {
    #[primary_key]
    #[auto_inc]
    pub id: u64,
    pub n: u32,
}
#[table(name = count_i128, public)]
pub struct CountI128 {
    #[primary_key]
    #[auto_inc]
    pub id: i128,
    pub n: u32,
}
#[table(name = count_u128, public)]
pub struct CountU128 {
    #[primary_key]
    #[auto_inc]
    pub id: u128,
    pub n: u32,
}
#[table(name = count_i256, public)]
pub struct CountI256 {
    #[primary_key]
    #[auto_inc]
    pub id: i256,
    pub n: u32,
}
#[table(name = count_u256, public)]
pub struct CountU256 {
    #[primary_key]
    #[auto_inc]
    pub id: u256,
    pub n: u32,
}

/// A counter that is neither key nor unique.
#[table(name = ticket, public)]
pub struct Ticket {
    #[auto_inc]
    pub number: u32,
    pub holder: String,
}

#[table(name = visitor, public)]
#[derive(Clone)]
pub struct Visitor {
    #[primary_key]
    pub identity: Identity,
    pub connection: Option<ConnectionId>,
    pub online: bool,
    pub visits: u32,
}

#[table(name = diary, public)]
pub struct Diary {
    pub at: Timestamp,
    pub text: String,
}

/// Everybody sees their own letters, and nobody else's.
#[table(name = letter, public)]
pub struct Letter {
    #[index(btree)]
    pub owner: Identity,
    pub text: String,
}
#[client_visibility_filter]
const OWN_LETTERS: Filter = Filter::Sql("SELECT * FROM letter WHERE owner = :sender");

#[table(name = secret)]
pub struct Secret {
    #[primary_key]
    pub id: u32,
    pub text: String,
}

#[table(name = watering, public, scheduled(water))]
pub struct Watering {
    #[primary_key]
    #[auto_inc]
    pub scheduled_id: u64,
    pub scheduled_at: ScheduleAt,
    pub amount: u32,
}

#[cfg(feature = "v2")]
#[table(name = compost, public)]
pub struct Compost {
    #[primary_key]
    pub id: u32,
}

fn note(ctx: &ReducerContext, text: &str) {
    ctx.db.diary().insert(Diary { at: ctx.timestamp, text: text.into() });
}

// ---------- the events of a database ----------
#[reducer(init)]
pub fn init(ctx: &ReducerContext) {
    ctx.db.secret().insert(Secret { id: 1, text: "under the stone".into() });
    note(ctx, "init");
    log::info!("planted, {:?}", ctx.connection_id);
}

#[reducer(client_connected)]
pub fn come(ctx: &ReducerContext) {
    let visitors = ctx.db.visitor();
    if let Some(visitor) = visitors.identity().find(ctx.sender) {
        let visits = visitor.visits + 1;
        visitors.identity().update(Visitor { online: true, visits, connection: ctx.connection_id, ..visitor });
    } else {
        visitors.insert(Visitor { identity: ctx.sender, connection: ctx.connection_id, online: true, visits: 1 });
    }
}

#[reducer(client_disconnected)]
pub fn go(ctx: &ReducerContext) {
    if let Some(visitor) = ctx.db.visitor().identity().find(ctx.sender) {
        ctx.db.visitor().identity().update(Visitor { online: false, ..visitor });
    }
}

// ---------- rows ----------
#[reducer]
pub fn put_every(ctx: &ReducerContext, id: u32) -> Result<(), String> {
    let row = Every {
        id,
        b: true,
        i8_: -8,
        u8_: 8,
        i16_: -16,
        u16_: 16,
        i32_: -32,
        u32_: 32,
        i64_: -64,
        u64_: 64,
        i128_: -128,
        u128_: 128,
        i256_: i256::from(-256),
        u256_: u256::from(256u32),
        f32_: 1.5,
        f64_: -2.25,
        s: "héllo".into(),
        bytes: vec![0, 255],
        identity: ctx.sender,
        connection: ctx.connection_id.unwrap_or(ConnectionId::ZERO),
        at: ctx.timestamp,
        lasts: TimeDuration::from_micros(-5),
        due: ScheduleAt::Interval(TimeDuration::from_micros(9)),
        colour: Colour::Green,
        shape: Shape::Label("rose".into()),
        point: Point { x: 1, y: -1 },
        maybe: Some(7),
        maybe_text: None,
        numbers: vec![1, -2, 3],
        texts: vec!["a".into(), "".into()],
        points: vec![Point { x: 2, y: 3 }],
    };
    ctx.db.every().try_insert(row.clone())?;
    let back = ctx.db.every().id().find(id).ok_or("it is not there")?;
    if back != row {
        return Err("it is not the same".into());
    }
    Ok(())
}

#[reducer]
#[allow(clippy::too_many_arguments)]
pub fn echo(
    ctx: &ReducerContext,
    who: Identity,
    where_: ConnectionId,
    colour: Colour,
    shape: Shape,
    point: Point,
    maybe: Option<String>,
    numbers: Vec<i128>,
) {
    note(ctx, &format!("{who} {where_} {colour:?} {shape:?} {point:?} {maybe:?} {numbers:?}"));
}

#[reducer]
pub fn sow(ctx: &ReducerContext, name: String, kind: u32, height: i32) -> Result<(), String> {
    if name.is_empty() {
        return Err("a plant needs a name".into());
    }
    let planted = ctx.db.plant().try_insert(Plant { id: 0, name, kind, height, alive: true })?;
    log::debug!("plant {} is {}", planted.id, planted.name);
    Ok(())
}

#[reducer]
pub fn grow(ctx: &ReducerContext, name: String, by: i32) -> Result<(), String> {
    let found = ctx.db.plant().name().find(&name).ok_or("no such plant")?;
    let height = found.height + by;
    ctx.db.plant().id().update(Plant { height, ..found });
    Ok(())
}

#[reducer]
pub fn fell(ctx: &ReducerContext, kind: u32) {
    let count = ctx.db.plant().kind().delete(kind);
    log::warn!("{count} plants of kind {kind} are gone");
}

#[reducer]
pub fn fell_between(ctx: &ReducerContext, kind: u32, low: i32, high: i32) {
    let count = ctx.db.plant().by_kind_height().delete((kind, low..high));
    note(ctx, &format!("felled {count}"));
}

#[reducer]
pub fn fell_one(ctx: &ReducerContext, name: String) -> Result<(), String> {
    if ctx.db.plant().name().delete(&name) { Ok(()) } else { Err(format!("no plant {name}")) }
}

/// Every scan that the crate has, told to the diary.
#[reducer]
pub fn scans(ctx: &ReducerContext) {
    fn names(plants: impl Iterator<Item = Plant>) -> String {
        let mut names: Vec<String> = plants.map(|plant| plant.name).collect();
        names.sort();
        names.join(",")
    }
    let plants = ctx.db.plant();
    let both = plants.by_kind_height();
    let said = [
        format!("all {} {}", plants.count(), names(plants.iter())),
        format!("kind {}", names(plants.kind().filter(1u32))),
        format!("kinds {}", names(plants.kind().filter(2u32..))),
        format!("below {}", names(plants.kind().filter(..2u32))),
        format!("upto {}", names(plants.kind().filter(..=2u32))),
        format!("between {}", names(plants.kind().filter(1u32..=2))),
        format!("id {}", names(plants.id().find(1).into_iter())),
        format!("name {}", names(plants.name().find("rose".to_string()).into_iter())),
        format!("none {}", names(plants.name().find("thorn".to_string()).into_iter())),
        format!("prefix {}", names(both.filter(1u32))),
        format!("exact {}", names(both.filter((1u32, 5i32)))),
        format!("tail {}", names(both.filter((1u32, 4i32..)))),
        format!("span {}", names(both.filter((1u32, 4i32..6)))),
        format!("spread {}", names(both.filter(1u32..3))),
    ];
    for line in said {
        note(ctx, &line);
    }
}

#[reducer]
pub fn count(ctx: &ReducerContext, times: u32) {
    for n in 0..times {
        ctx.db.count_i8().insert(CountI8 { id: 0, n });
        ctx.db.count_u8().insert(CountU8 { id: 0, n });
        ctx.db.count_i16().insert(CountI16 { id: 0, n });
        ctx.db.count_u16().insert(CountU16 { id: 0, n });
        ctx.db.count_i32().insert(CountI32 { id: 0, n });
        ctx.db.count_u32().insert(CountU32 { id: 0, n });
        ctx.db.count_i64().insert(CountI64 { id: 0, n });
        ctx.db.count_u64().insert(CountU64 { id: 0, n });
        ctx.db.count_i128().insert(CountI128 { id: 0, n });
        ctx.db.count_u128().insert(CountU128 { id: 0, n });
        ctx.db.count_i256().insert(CountI256 { id: i256::from(0), n });
        ctx.db.count_u256().insert(CountU256 { id: u256::from(0u32), n });
        ctx.db.ticket().insert(Ticket { number: 0, holder: format!("{n}") });
    }
}

#[reducer]
pub fn write(ctx: &ReducerContext, text: String) {
    ctx.db.letter().insert(Letter { owner: ctx.sender, text });
}

// ---------- timers ----------
#[reducer]
pub fn water_later(ctx: &ReducerContext, amount: u32, millis: u64) {
    let scheduled_at = ScheduleAt::Time(ctx.timestamp + TimeDuration::from_micros(millis as i64 * 1000));
    ctx.db.watering().insert(Watering { scheduled_id: 0, scheduled_at, amount });
}

#[reducer]
pub fn water_often(ctx: &ReducerContext, amount: u32, millis: u64) {
    let scheduled_at = ScheduleAt::from(Duration::from_millis(millis));
    ctx.db.watering().insert(Watering { scheduled_id: 0, scheduled_at, amount });
}

#[reducer]
pub fn stop_watering(ctx: &ReducerContext) {
    for watering in ctx.db.watering().iter() {
        ctx.db.watering().scheduled_id().delete(watering.scheduled_id);
    }
}

#[reducer]
pub fn water(ctx: &ReducerContext, watering: Watering) {
    note(ctx, &format!("watered {} {} {:?}", watering.amount, ctx.sender == ctx.identity(), ctx.connection_id));
}

// ---------- failures and the log ----------
#[reducer]
pub fn refuse(ctx: &ReducerContext, why: String) -> Result<(), String> {
    note(ctx, "not to be seen");
    Err(why)
}

#[reducer]
pub fn panic(ctx: &ReducerContext, why: String) {
    note(ctx, "not to be seen");
    panic!("{why}");
}

#[reducer]
pub fn twice(ctx: &ReducerContext) -> Result<(), String> {
    ctx.db.secret().try_insert(Secret { id: 1, text: "again".into() })?;
    Ok(())
}

#[reducer]
pub fn speak(_ctx: &ReducerContext) {
    let _watch = LogStopwatch::new("speaking");
    log::error!("an error");
    log::warn!("a warning");
    log::info!("an info");
    log::debug!("a debug");
    log::trace!("a trace");
}

#[cfg(feature = "v2")]
#[reducer]
pub fn rot(ctx: &ReducerContext, id: u32) {
    ctx.db.compost().insert(Compost { id });
}
