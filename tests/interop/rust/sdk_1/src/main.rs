//! crates.io `spacetimedb-sdk` 1.12: SubscribeMulti over v1.bsatn.

#[path = "../../shared/chat.rs"]
mod chat;
#[path = "../../shared/driver.rs"]
mod driver;

use chat::{AppliedDiff, Chat, Connection, Context, DbUpdate, Queries, Reducer, Row, Subscription, Unused};
use driver::say;
use serde_json::{json, Value};
use spacetimedb_sdk::__codegen::{self as sdk, __ws as ws, DbContextImpl, InternalError, SubscriptionBuilder};
use spacetimedb_sdk::{DbConnectionBuilder, Error, Event, ReducerEvent, Status};

fn main() {
    driver::run();
}

/// Set what the builder calls differently in the two generations.
pub fn choose_database(builder: DbConnectionBuilder<Chat>, options: &Value) -> DbConnectionBuilder<Chat> {
    builder
        .with_module_name(options["database"].as_str().expect("a name"))
        .with_light_mode(options["light"].as_bool().unwrap_or(false))
}

/// In this generation callbacks are told of every call of a reducer that reaches the client.
pub fn watch_reducers(imp: &DbContextImpl<Chat>) {
    for name in Reducer::NAMES {
        imp.on_reducer(name, Box::new(tell_result));
    }
}

fn tell_result(context: &Context<ReducerEvent<Reducer>>) {
    let event = &context.event;
    let (status, text) = match &event.status {
        Status::Committed => ("committed", None),
        Status::Failed(text) => ("failed", Some(text)),
        Status::OutOfEnergy => ("out of energy", None),
    };
    let mine = event.caller_connection_id == Some(context.imp.connection_id());
    let kind = if mine { "result" } else { "foreign result" };
    say(json!({"event": kind, "reducer": event.reducer.name(), "status": status, "text": text}));
}

pub fn call(imp: &DbContextImpl<Chat>, reducer: Reducer) {
    let name = reducer.name();
    match reducer {
        Reducer::SetName(arguments) => imp.call_reducer(name, arguments),
        Reducer::SendMessage(arguments) => imp.call_reducer(name, arguments),
        Reducer::NoSuchReducer(arguments) => imp.call_reducer(name, arguments),
    }
    .expect("a connection");
}

/// In this generation such a subscription cannot be ended.
pub fn subscribe_to_all(builder: SubscriptionBuilder<Chat>) -> Option<Subscription> {
    builder.subscribe_to_all_tables();
    None
}

impl sdk::SpacetimeModule for Chat {
    type DbConnection = Connection;
    type EventContext = Context<Event<Reducer>>;
    type ReducerEventContext = Context<ReducerEvent<Reducer>>;
    type ProcedureEventContext = Context<()>;
    type SubscriptionEventContext = Context<()>;
    type ErrorContext = Context<Option<Error>>;
    type Reducer = Reducer;
    type DbView = Unused;
    type Reducers = Unused;
    type SetReducerFlags = Unused;
    type DbUpdate = DbUpdate;
    type AppliedDiff<'r> = AppliedDiff<'r>;
    type SubscriptionHandle = Subscription;
    type QueryBuilder = Queries;

    fn register_tables(cache: &mut sdk::ClientCache<Self>) {
        chat::register_tables(cache);
    }
}

impl sdk::Reducer for Reducer {
    fn reducer_name(&self) -> &'static str {
        self.name()
    }
}

impl TryFrom<ws::ReducerCallInfo<ws::BsatnFormat>> for Reducer {
    type Error = Error;
    fn try_from(call: ws::ReducerCallInfo<ws::BsatnFormat>) -> Result<Self, Error> {
        Ok(match &*call.reducer_name {
            "set_name" => Self::SetName(sdk::parse_reducer_args("set_name", &call.args)?),
            "send_message" => Self::SendMessage(sdk::parse_reducer_args("send_message", &call.args)?),
            "no_such_reducer" => Self::NoSuchReducer(sdk::parse_reducer_args("no_such_reducer", &call.args)?),
            other => return Err(InternalError::unknown_name("reducer", other, "ReducerCallInfo").into()),
        })
    }
}

impl TryFrom<ws::DatabaseUpdate<ws::BsatnFormat>> for DbUpdate {
    type Error = Error;
    fn try_from(update: ws::DatabaseUpdate<ws::BsatnFormat>) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for table in update.tables {
            match &*table.table_name {
                chat::User::TABLE => parsed.user.append(sdk::TableUpdate::parse_table_update(table)?),
                chat::Message::TABLE => parsed.message.append(sdk::TableUpdate::parse_table_update(table)?),
                other => return Err(InternalError::unknown_name("table", other, "DatabaseUpdate").into()),
            }
        }
        Ok(parsed)
    }
}

impl sdk::DbUpdate for DbUpdate {
    fn apply_to_client_cache(&self, cache: &mut sdk::ClientCache<Chat>) -> AppliedDiff<'_> {
        self.apply(cache)
    }
}
