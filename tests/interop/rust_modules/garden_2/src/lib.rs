//! The garden in Rust of 2.x: the one of 1.x, and what a module could not have then. The features v2 to v4 are its
//! later versions.

mod garden; // garden_1/src/lib.rs as 2.x spells it, put there by what builds this

use garden::*;
use spacetimedb::http::{Body, HandlerContext, Request, Response, Router};
use spacetimedb::{
    client_visibility_filter, reducer, table, view, AnonymousViewContext, Filter, Identity, Query, ReducerContext,
    Table, Uuid,
};

/// The column types that 1.x did not have.
#[table(accessor = label, public)]
#[derive(Clone, PartialEq)]
pub struct Label {
    #[primary_key]
    pub id: Uuid,
    pub tried: Result<u32, String>,
    pub failed: Result<u32, String>,
    pub maybe: Option<Option<u8>>,
}

/// Indexes that are no trees.
#[table(accessor = pot, public)]
pub struct Pot {
    #[primary_key]
    #[index(direct)]
    pub number: u32,
    #[index(hash)]
    pub plant: String,
}

/// Rows that are told and not kept.
#[table(accessor = rustle, public, event)]
pub struct Rustle {
    pub text: String,
}

/// Everybody sees their own seats and the free ones.
#[table(accessor = seat, public)]
pub struct Seat {
    #[primary_key]
    #[auto_inc]
    pub id: u32,
    pub owner: Identity,
    pub free: bool,
}
#[client_visibility_filter]
const OWN_SEATS: Filter = Filter::Sql("SELECT * FROM seat WHERE owner = :sender");
#[client_visibility_filter]
const FREE_SEATS: Filter = Filter::Sql("SELECT * FROM seat WHERE free = true");

#[cfg(not(any(feature = "v3", feature = "v4")))]
#[table(accessor = bench, public)]
pub struct Bench {
    #[primary_key]
    #[auto_inc]
    pub id: u32,
    pub wood: String,
}
/// A column more.
#[cfg(feature = "v3")]
#[table(accessor = bench, public)]
pub struct Bench {
    #[primary_key]
    #[auto_inc]
    pub id: u32,
    pub wood: String,
    #[default(2)]
    pub seats: u32,
}
/// A column of another type, which no rows can be brought to.
#[cfg(feature = "v4")]
#[table(accessor = bench, public)]
pub struct Bench {
    #[primary_key]
    #[auto_inc]
    pub id: u32,
    pub wood: u64,
}

// ---------- rows ----------
#[reducer]
pub fn put_label(ctx: &ReducerContext, id: Uuid) -> Result<(), String> {
    let row = Label { id, tried: Ok(7), failed: Err("no".into()), maybe: Some(None) };
    ctx.db.label().insert(row.clone());
    if ctx.db.label().id().find(id) != Some(row) {
        return Err("it is not the same".into());
    }
    ctx.db.label().insert(Label { id: ctx.new_uuid_v7().unwrap(), tried: Ok(0), failed: Err("".into()), maybe: None });
    Ok(())
}

#[reducer]
pub fn pot_up(ctx: &ReducerContext, number: u32, plant: String) -> Result<(), String> {
    ctx.db.pot().try_insert(Pot { number, plant })?;
    Ok(())
}

/// Move what is in one pot to another, and empty the pots of a plant.
#[reducer]
pub fn repot(ctx: &ReducerContext, number: u32, plant: String, away: String) -> Result<(), String> {
    let pot = ctx.db.pot().number().find(number).ok_or("no such pot")?;
    ctx.db.pot().number().update(Pot { plant, ..pot });
    let gone = ctx.db.pot().plant().delete(&away);
    let left = ctx.db.pot().plant().filter(&away).count();
    log::info!("{gone} gone, {left} left");
    Ok(())
}

#[reducer]
pub fn shake(ctx: &ReducerContext, text: String) {
    ctx.db.rustle().insert(Rustle { text });
}

#[reducer]
pub fn sit(ctx: &ReducerContext, free: bool) {
    ctx.db.seat().insert(Seat { id: 0, owner: ctx.sender(), free });
}

#[cfg(not(feature = "v2"))]
#[reducer]
pub fn build_bench(ctx: &ReducerContext, wood: String) {
    #[cfg(not(feature = "v4"))]
    ctx.db.bench().insert(Bench { id: 0, wood });
    #[cfg(feature = "v4")]
    ctx.db.bench().insert(Bench { id: 0, wood: wood.len() as u64 });
}
/// It does something else.
#[cfg(all(feature = "v2", not(feature = "v3")))]
#[reducer]
pub fn build_bench(ctx: &ReducerContext, wood: String) -> Result<(), String> {
    if wood.is_empty() {
        return Err("of which wood?".into());
    }
    ctx.db.bench().insert(Bench { id: 0, wood: format!("old {wood}") });
    Ok(())
}
/// It takes something else.
#[cfg(feature = "v3")]
#[reducer]
pub fn build_bench(ctx: &ReducerContext, wood: String, seats: u32) {
    ctx.db.bench().insert(Bench { id: 0, wood, seats });
}

// ---------- views ----------
#[view(accessor = potted, public)]
fn potted(ctx: &AnonymousViewContext) -> impl Query<Plant> {
    ctx.from.pot().right_semijoin(ctx.from.plant(), |pot, plant| pot.plant.eq(plant.name))
}

#[view(accessor = fragile, public)]
fn fragile(ctx: &AnonymousViewContext) -> Vec<Pot> {
    assert!(ctx.db.pot().number().find(13).is_none(), "a pot of bad luck");
    vec![]
}

// ---------- HTTP routes ----------
#[spacetimedb::http::handler]
fn list(ctx: &mut HandlerContext, _req: Request) -> Response {
    let mut names: Vec<String> = ctx.with_tx(|tx| tx.db.plant().iter().map(|plant| plant.name).collect());
    names.sort();
    Response::new(Body::from_bytes(names.join("\n")))
}

#[spacetimedb::http::handler]
fn plant_one(ctx: &mut HandlerContext, req: Request) -> Response {
    let name = req.into_body().into_string_lossy();
    let planted = ctx.try_with_tx(|tx| {
        let plant = Plant { id: 0, name: name.clone(), kind: 9, height: 1, alive: true };
        tx.db.plant().try_insert(plant).map_err(|error| error.to_string())
    });
    let (status, text) = match planted {
        Ok(plant) => (201, plant.id.to_string()),
        Err(error) => (409, error),
    };
    Response::builder().status(status).header("x-garden", "2").body(Body::from_bytes(text)).unwrap()
}

#[spacetimedb::http::handler]
fn hello(_ctx: &mut HandlerContext, req: Request) -> Response {
    Response::new(Body::from_bytes(format!("{} at {}", req.method(), req.uri().path())))
}

#[spacetimedb::http::router]
fn router() -> Router {
    let gate = Router::new().any("/bell", hello);
    Router::new().get("/plants", list).post("/plants", plant_one).nest("/gate", gate)
}
