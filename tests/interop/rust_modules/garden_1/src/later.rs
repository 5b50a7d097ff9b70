//! What a garden has from crate 1.12 on: views and procedures.
use super::*;
use spacetimedb::{procedure, view, AnonymousViewContext, ProcedureContext, Query, ViewContext};

// ---------- views ----------
#[derive(SpacetimeType)]
pub struct Heights {
    pub plants: u64,
    pub sum: i64,
}

#[view(name = heights, public)]
fn heights(ctx: &AnonymousViewContext) -> Option<Heights> {
    let heights: Vec<i64> = ctx.db.plant().kind().filter(0u32..).map(|plant| plant.height.into()).collect();
    Some(Heights { plants: heights.len() as u64, sum: heights.iter().sum() })
}

#[view(name = my_letters, public)]
fn my_letters(ctx: &ViewContext) -> Vec<Letter> {
    ctx.db.letter().owner().filter(ctx.sender).collect()
}

#[view(name = tall, public)]
fn tall(ctx: &AnonymousViewContext) -> Query<Plant> {
    ctx.from.plant().r#where(|plant| plant.height.gte(5).and(plant.alive.eq(true))).build()
}

#[view(name = me, public)]
fn me(ctx: &ViewContext) -> Query<Visitor> {
    ctx.from.visitor().filter(|visitor| visitor.identity.eq(ctx.sender)).build()
}

// ---------- procedures ----------
#[procedure]
pub fn harvest(ctx: &mut ProcedureContext, kind: u32) -> Vec<String> {
    ctx.with_tx(|tx| {
        let names = tx.db.plant().kind().filter(kind).map(|plant| plant.name).collect();
        tx.db.plant().kind().delete(kind);
        names
    })
}

/// Plant in one transaction, and only if the plant is not too high.
#[procedure]
pub fn try_sow(ctx: &mut ProcedureContext, name: String, height: i32) -> String {
    let planted = ctx.try_with_tx(|tx| {
        let plant = tx.db.plant().insert(Plant { id: 0, name: name.clone(), kind: 8, height, alive: true });
        if height > 100 { Err(format!("{name} is too high")) } else { Ok(plant.id) }
    });
    planted.map_or_else(|error| error, |id| format!("planted {id}"))
}

/// Say when it is before and after a while; other transactions pass in between.
#[procedure]
pub fn nap(ctx: &mut ProcedureContext, millis: u32) -> i64 {
    let before = ctx.timestamp;
    ctx.with_tx(|tx| tx.db.diary().insert(Diary { at: tx.timestamp, text: "asleep".into() }));
    ctx.sleep_until(before + TimeDuration::from_micros(i64::from(millis) * 1000));
    let count = ctx.with_tx(|tx| tx.db.plant().count());
    let slept: TimeDuration = ctx.timestamp.duration_since(before).unwrap_or_default().into();
    ctx.with_tx(|tx| tx.db.diary().insert(Diary { at: tx.timestamp, text: format!("awake among {count}") }));
    slept.to_micros()
}

#[procedure]
pub fn fetch(ctx: &mut ProcedureContext, uri: String) -> String {
    match ctx.http.get(&uri) {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let kind = parts.headers.get("x-kind").map(|value| value.to_str().unwrap().to_owned());
            format!("{} {kind:?} {}", parts.status, body.into_string_lossy())
        }
        Err(error) => format!("failed: {error}"),
    }
}

#[procedure]
pub fn tell(ctx: &mut ProcedureContext, uri: String, body: String) -> u16 {
    let request = spacetimedb::http::Request::builder().method("POST").uri(uri).header("x-from", "garden");
    ctx.http.send(request.body(body).unwrap()).unwrap().status().as_u16()
}

#[procedure]
pub fn fall(ctx: &mut ProcedureContext) {
    ctx.with_tx(|tx| tx.db.diary().insert(Diary { at: tx.timestamp, text: "kept".into() }));
    ctx.with_tx(|tx| {
        tx.db.diary().insert(Diary { at: Timestamp::UNIX_EPOCH, text: "lost".into() });
        panic!("it falls");
    })
}
