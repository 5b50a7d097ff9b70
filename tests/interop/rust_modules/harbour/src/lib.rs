// A harbour: what crates 2.9 to 2.14 of `spacetimedb` have that those before had not, each behind a feature.
#![allow(clippy::disallowed_names, non_snake_case)]
use spacetimedb::http::{Body, HandlerContext, Request, Response, Router};
#[cfg(any(feature = "env", feature = "params"))]
use spacetimedb::AnonymousViewContext;
use spacetimedb::{procedure, reducer, table, view, Identity, ProcedureContext, ReducerContext, Table, ViewContext};

#[table(accessor = ship, public)]
pub struct Ship {
    #[primary_key]
    #[auto_inc]
    pub id: u64,
    #[index(btree)]
    pub captain: Identity,
    #[index(btree)]
    pub berth: u32,
    pub name: String,
}

#[reducer]
pub fn moor(ctx: &ReducerContext, berth: u32, name: String) -> Result<(), String> {
    if name.is_empty() {
        return Err("a ship has a name".into());
    }
    ctx.db.ship().insert(Ship { id: 0, captain: ctx.sender(), berth, name });
    Ok(())
}

#[reducer]
pub fn rename(ctx: &ReducerContext, ship_id: u64, newName: String) {
    let ship = ctx.db.ship().id().find(ship_id).expect("no such ship");
    ctx.db.ship().id().update(Ship { name: newName, ..ship });
}

#[procedure]
pub fn count_ships(ctx: &mut ProcedureContext) -> u64 {
    ctx.with_tx(|tx| tx.db.ship().count())
}

#[view(accessor = mine, public)]
fn mine(ctx: &ViewContext) -> Vec<Ship> {
    ctx.db.ship().captain().filter(ctx.sender()).collect()
}

#[spacetimedb::http::handler]
fn greet(_ctx: &mut HandlerContext, req: Request) -> Response {
    let method = req.method().clone();
    let answer = format!("{method} says {}", req.into_body().into_string_lossy());
    let mut response = Response::new(Body::from_bytes(answer));
    response.headers_mut().insert("x-harbour", "open".parse().unwrap());
    response
}

#[spacetimedb::http::handler]
fn land(ctx: &mut HandlerContext, req: Request) -> Response {
    let name = req.into_body().into_string_lossy();
    let captain = ctx.with_tx(|tx| {
        tx.db.ship().insert(Ship { id: 0, captain: tx.sender(), berth: 99, name: name.clone() });
        tx.sender()
    });
    Response::builder().status(201).body(Body::from_bytes(captain.to_hex().to_string())).unwrap()
}

#[cfg(feature = "senders")]
#[spacetimedb::http::handler]
fn who(ctx: &mut HandlerContext, _req: Request) -> Response {
    let sender = ctx.sender();
    let seen = ctx.with_tx(|tx| {
        let jwt = tx.sender_auth().jwt().expect("every request has a token");
        format!("{} {} {}", tx.sender() == sender, jwt.identity() == sender, jwt.issuer())
    });
    Response::new(Body::from_bytes(format!("{} {seen}", sender.to_hex())))
}

#[spacetimedb::http::router]
fn router() -> Router {
    let router = Router::new().post("/greet", greet).post("/land", land);
    #[cfg(feature = "senders")]
    let router = router.get("/who", who);
    #[cfg(feature = "env")]
    let router = router.get("/flag", environment::flag);
    router
}

#[cfg(feature = "params")]
mod parameters {
    use super::*;

    #[view(accessor = at_berth, public)]
    fn at_berth(ctx: &AnonymousViewContext, berth: u32) -> Vec<Ship> {
        ctx.db.ship().berth().filter(berth).collect()
    }

    #[view(accessor = mine_named, public)]
    fn mine_named(ctx: &ViewContext, name: String, berth: u32) -> Option<Ship> {
        ctx.db.ship().captain().filter(ctx.sender()).find(|ship| ship.name == name && ship.berth == berth)
    }
}

#[cfg(feature = "env")]
mod environment {
    use super::*;

    #[derive(spacetimedb::EnvironmentValue, Debug)]
    pub enum Weather {
        #[env(value = "calm")]
        Calm,
        #[env(value = "half a gale")]
        Gale,
    }

    #[spacetimedb::env]
    pub struct Env {
        pub FLAG: String,
        pub WEATHER: Option<Weather>,
        pub PILOT: Option<String>,
    }

    #[table(accessor = note, public)]
    pub struct Note {
        pub text: String,
    }

    #[reducer(init)]
    fn init(ctx: &ReducerContext) {
        ctx.db.note().insert(Note { text: format!("opened under {}", ctx.env.FLAG()) });
    }

    #[reducer]
    fn observe(ctx: &ReducerContext) {
        let text = format!("{} {:?} {:?}", ctx.env.FLAG(), ctx.env.WEATHER(), ctx.env.PILOT());
        ctx.db.note().insert(Note { text });
    }

    #[reducer]
    fn peek(ctx: &ReducerContext, key: String) {
        let text = format!("{key} is {:?}", ctx.env.get(&key));
        ctx.db.note().insert(Note { text });
    }

    #[procedure]
    fn flag_now(ctx: &mut ProcedureContext) -> String {
        let outside = ctx.env.FLAG();
        ctx.with_tx(|tx| format!("{outside} {:?}", tx.env.get("PILOT")))
    }

    #[view(accessor = flag_shown, public)]
    fn flag_shown(ctx: &AnonymousViewContext) -> Option<Note> {
        Some(Note { text: format!("{} with {:?}", ctx.env.FLAG(), ctx.env.PILOT()) })
    }

    #[spacetimedb::http::handler]
    pub fn flag(ctx: &mut HandlerContext, _req: Request) -> Response {
        Response::new(Body::from_bytes(ctx.env.FLAG()))
    }
}
