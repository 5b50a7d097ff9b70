//! A garden, in Rust of 0.11: every column type, every scan, every counter, timers, the events of a database.
use spacetimedb::time_span::Span;
use spacetimedb::{query, spacetimedb, Address, Identity, ReducerContext, SpacetimeType, Timestamp};
use spacetimedb_lib::ScheduleAt;
use std::collections::BTreeMap;
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
#[spacetimedb(table(public))]
#[derive(Clone, PartialEq)]
pub struct Every {
    #[primarykey]
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
    pub f32_: f32,
    pub f64_: f64,
    pub s: String,
    pub bytes: Vec<u8>,
    pub identity: Identity,
    pub address: Address,
    pub at: Timestamp,
    pub colour: Colour,
    pub shape: Shape,
    pub point: Point,
    pub maybe: Option<u32>,
    pub maybe_text: Option<String>,
    pub numbers: Vec<i32>,
    pub texts: Vec<String>,
    pub points: Vec<Point>,
}

#[spacetimedb(table(public))]
#[spacetimedb(index(btree, name = "by_kind", kind))]
#[spacetimedb(index(btree, kind, height))]
#[derive(Clone)]
pub struct Plant {
    #[primarykey]
    #[autoinc]
    pub id: u64,
    #[unique]
    pub name: String,
    pub kind: u32,
    pub height: i32,
    pub alive: bool,
}

/// Two tables may have an index of the same name.
#[spacetimedb(table(public))]
#[spacetimedb(index(btree, place, number))]
pub struct Bed {
    pub place: u32,
    pub number: u32,
}

macro_rules! counters {
    ($($name:ident $type:ident),*) => { $(
        #[spacetimedb(table(public))]
        pub struct $name {
            #[primarykey]
            #[autoinc]
            pub id: $type,
            pub n: u32,
        }
    )* };
}
counters!(CountI8 i8, CountU8 u8, CountI16 i16, CountU16 u16, CountI32 i32, CountU32 u32, CountI64 i64, CountU64 u64);
counters!(CountI128 i128, CountU128 u128);

/// A counter that is neither key nor unique.
#[spacetimedb(table(public))]
pub struct Ticket {
    #[autoinc]
    pub number: u32,
    pub holder: String,
}

#[spacetimedb(table(public))]
#[derive(Clone)]
pub struct Visitor {
    #[primarykey]
    pub identity: Identity,
    pub address: Option<Address>,
    pub online: bool,
    pub visits: u32,
}

#[spacetimedb(table(public))]
pub struct Diary {
    pub at: Timestamp,
    pub text: String,
}

#[spacetimedb(table(private))]
pub struct Secret {
    #[primarykey]
    pub id: u32,
    pub text: String,
}

#[spacetimedb(table(public), scheduled(water))]
pub struct Watering {
    pub amount: u32,
}

#[cfg(feature = "v2")]
#[spacetimedb(table(public))]
pub struct Compost {
    #[primarykey]
    pub id: u32,
}

fn note(at: Timestamp, text: &str) {
    Diary::insert(Diary { at, text: text.into() });
}

// ---------- the events of a database ----------
#[spacetimedb(init)]
pub fn init(ctx: ReducerContext) {
    Secret::insert(Secret { id: 1, text: "under the stone".into() }).unwrap();
    note(ctx.timestamp, "init");
    log::info!("planted, {:?}", ctx.address);
}

#[spacetimedb(connect)]
pub fn come(ctx: ReducerContext) -> Result<(), String> {
    #[cfg(feature = "refusing")]
    return Err("the garden is closed".into());
    #[allow(unreachable_code)]
    {
        let visits = Visitor::filter_by_identity(&ctx.sender).map_or(0, |visitor| visitor.visits);
        let visitor = Visitor { identity: ctx.sender, address: ctx.address, online: true, visits: visits + 1 };
        if !Visitor::update_by_identity(&ctx.sender, visitor.clone()) {
            Visitor::insert(visitor).unwrap();
        }
        Ok(())
    }
}

#[spacetimedb(disconnect)]
pub fn go(ctx: ReducerContext) {
    if let Some(visitor) = Visitor::filter_by_identity(&ctx.sender) {
        Visitor::update_by_identity(&ctx.sender, Visitor { online: false, ..visitor });
    }
}

#[spacetimedb(update)]
pub fn updated(ctx: ReducerContext) -> Result<(), String> {
    note(ctx.timestamp, "update");
    #[cfg(feature = "badupdate")]
    return Err("this update is none".into());
    #[allow(unreachable_code)]
    Ok(())
}

// ---------- rows ----------
#[spacetimedb(reducer)]
pub fn put_every(ctx: ReducerContext, id: u32) -> Result<(), String> {
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
        f32_: 1.5,
        f64_: -2.25,
        s: "héllo".into(),
        bytes: vec![0, 255],
        identity: ctx.sender,
        address: ctx.address.unwrap_or(Address::__DUMMY),
        at: ctx.timestamp,
        colour: Colour::Green,
        shape: Shape::Label("rose".into()),
        point: Point { x: 1, y: -1 },
        maybe: Some(7),
        maybe_text: None,
        numbers: vec![1, -2, 3],
        texts: vec!["a".into(), "".into()],
        points: vec![Point { x: 2, y: 3 }],
    };
    Every::insert(row.clone())?;
    let back = Every::filter_by_id(&id).ok_or("it is not there")?;
    if back != row {
        return Err("it is not the same".into());
    }
    Ok(())
}

#[spacetimedb(reducer)]
#[allow(clippy::too_many_arguments)]
pub fn echo(
    ctx: ReducerContext,
    who: Identity,
    where_: Address,
    colour: Colour,
    shape: Shape,
    point: Point,
    maybe: Option<String>,
    numbers: Vec<i128>,
) {
    note(ctx.timestamp, &format!("{who} {where_} {colour:?} {shape:?} {point:?} {maybe:?} {numbers:?}"));
}

#[spacetimedb(reducer)]
pub fn sow(_ctx: ReducerContext, name: String, kind: u32, height: i32) -> Result<(), String> {
    if name.is_empty() {
        return Err("a plant needs a name".into());
    }
    let planted = Plant::insert(Plant { id: 0, name, kind, height, alive: true })?;
    log::debug!("plant {} is {}", planted.id, planted.name);
    Ok(())
}

#[spacetimedb(reducer)]
pub fn grow(_ctx: ReducerContext, name: String, by: i32) -> Result<(), String> {
    let found = Plant::filter_by_name(&name).ok_or("no such plant")?;
    let height = found.height + by;
    if !Plant::update_by_id(&found.id.clone(), Plant { height, ..found }) {
        return Err("it went away".into());
    }
    Ok(())
}

#[spacetimedb(reducer)]
pub fn fell(_ctx: ReducerContext, kind: u32) -> Result<(), String> {
    let count = Plant::delete_by_kind(&kind);
    log::warn!("{count} plants of kind {kind} are gone");
    Ok(())
}

#[spacetimedb(reducer)]
pub fn fell_one(_ctx: ReducerContext, name: String) -> Result<(), String> {
    if Plant::delete_by_name(&name) { Ok(()) } else { Err(format!("no plant {name}")) }
}

/// Every scan that the crate has, told to the diary.
#[spacetimedb(reducer)]
pub fn scans(ctx: ReducerContext) {
    fn names(plants: impl Iterator<Item = Plant>) -> String {
        let mut names: Vec<String> = plants.map(|plant| plant.name).collect();
        names.sort();
        names.join(",")
    }
    let said = [
        format!("all {}", names(Plant::iter())),
        format!("kind {}", names(Plant::filter_by_kind(&1))),
        format!("height {}", names(Plant::filter_by_height(&5))),
        format!("alive {}", names(Plant::filter_by_alive(&true))),
        format!("id {}", names(Plant::filter_by_id(&1).into_iter())),
        format!("name {}", names(Plant::filter_by_name(&"rose".to_string()).into_iter())),
        format!("none {}", names(Plant::filter_by_name(&"thorn".to_string()).into_iter())),
        format!("eq {}", names(query!(|plant: Plant| plant.kind == 1))),
        format!("ne {}", names(query!(|plant: Plant| plant.kind != 1))),
        format!("lt {}", names(query!(|plant: Plant| plant.height < 5))),
        format!("le {}", names(query!(|plant: Plant| plant.height <= 5))),
        format!("gt {}", names(query!(|plant: Plant| plant.height > 5))),
        format!("ge {}", names(query!(|plant: Plant| plant.height >= 5))),
        format!("and {}", names(query!(|plant: Plant| plant.kind == 1 && plant.height > 4))),
        format!("or {}", names(query!(|plant: Plant| plant.kind == 2 || plant.height == 9))),
    ];
    for line in said {
        note(ctx.timestamp, &line);
    }
}

#[spacetimedb(reducer)]
pub fn mass(_ctx: ReducerContext, beds: u32) {
    for number in 0..beds {
        Bed::insert(Bed { place: number % 7, number });
    }
    let seen = Bed::iter().count();
    log::info!("{seen} beds");
}

#[spacetimedb(reducer)]
pub fn clear_beds(ctx: ReducerContext) {
    let mut gone = 0;
    for bed in Bed::iter() {
        gone += u32::from(spacetimedb::TableType::delete(&bed));
    }
    note(ctx.timestamp, &format!("gone {gone}"));
}

#[spacetimedb(reducer)]
pub fn count(_ctx: ReducerContext, times: u32) -> Result<(), String> {
    for n in 0..times {
        CountI8::insert(CountI8 { id: 0, n })?;
        CountU8::insert(CountU8 { id: 0, n })?;
        CountI16::insert(CountI16 { id: 0, n })?;
        CountU16::insert(CountU16 { id: 0, n })?;
        CountI32::insert(CountI32 { id: 0, n })?;
        CountU32::insert(CountU32 { id: 0, n })?;
        CountI64::insert(CountI64 { id: 0, n })?;
        CountU64::insert(CountU64 { id: 0, n })?;
        CountI128::insert(CountI128 { id: 0, n })?;
        CountU128::insert(CountU128 { id: 0, n })?;
        Ticket::insert(Ticket { number: 0, holder: format!("{n}") });
    }
    Ok(())
}

// ---------- timers ----------
#[spacetimedb(reducer)]
pub fn water_later(ctx: ReducerContext, amount: u32, millis: u64) -> Result<(), String> {
    let at = ctx.timestamp + Duration::from_millis(millis);
    let scheduled_at = ScheduleAt::Time(at.into_micros_since_epoch().try_into().unwrap());
    Watering::insert(Watering { scheduled_id: 0, scheduled_at, amount })?;
    Ok(())
}

#[spacetimedb(reducer)]
pub fn water_often(_ctx: ReducerContext, amount: u32, millis: u64) -> Result<(), String> {
    let scheduled_at = ScheduleAt::from(Duration::from_millis(millis));
    Watering::insert(Watering { scheduled_id: 0, scheduled_at, amount })?;
    Ok(())
}

#[spacetimedb(reducer)]
pub fn stop_watering(_ctx: ReducerContext) {
    for watering in Watering::iter() {
        Watering::delete_by_scheduled_id(&watering.scheduled_id);
    }
}

#[spacetimedb(reducer)]
pub fn water(ctx: ReducerContext, watering: Watering) {
    let text = format!("watered {} {} {:?}", watering.amount, ctx.sender, ctx.address);
    note(ctx.timestamp, &text);
}

// ---------- failures and the log ----------
#[spacetimedb(reducer)]
pub fn refuse(ctx: ReducerContext, why: String) -> Result<(), String> {
    note(ctx.timestamp, "not to be seen");
    Err(why)
}

#[spacetimedb(reducer)]
pub fn panic(ctx: ReducerContext, why: String) {
    note(ctx.timestamp, "not to be seen");
    panic!("{why}");
}

#[spacetimedb(reducer)]
pub fn twice(_ctx: ReducerContext) -> Result<(), String> {
    Secret::insert(Secret { id: 1, text: "again".into() })?;
    Ok(())
}

#[spacetimedb(reducer)]
pub fn speak(_ctx: ReducerContext) {
    let _span = Span::start("speaking");
    log::error!("an error");
    log::warn!("a warning");
    log::info!("an info");
    log::debug!("a debug");
    log::trace!("a trace");
}

#[spacetimedb(reducer)]
pub fn spin(_ctx: ReducerContext) {
    loop {
        std::hint::black_box(BTreeMap::<u8, u8>::new());
    }
}

#[cfg(feature = "v2")]
#[spacetimedb(reducer)]
pub fn rot(_ctx: ReducerContext, id: u32) -> Result<(), String> {
    Compost::insert(Compost { id })?;
    Ok(())
}
