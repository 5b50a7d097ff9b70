//! crates.io `spacetimedb-sdk` 2.x: query sets over v2.bsatn.

#[path = "../../shared/chat.rs"]
mod chat;
#[path = "../../shared/driver.rs"]
mod driver;

use chat::{
    AppliedDiff, Chat, Connection, Context, DbUpdate, Message, Queries, Reducer, Row, Subscription, Unused, User,
};
use driver::say;
use serde_json::{json, Value};
use spacetimedb_sdk::__codegen::{
    self as sdk, __lib::bsatn, __query_builder::CanBeLookupTable, __ws::v2, DbContextImpl, InternalError,
    SubscriptionBuilder,
};
use spacetimedb_sdk::{DbConnectionBuilder, Error, Event, ReducerEvent};

fn main() {
    driver::run();
}

// Only in this generation the typed queries ask whether a table may be looked up: tables of events may not.
impl CanBeLookupTable for User {}
impl CanBeLookupTable for Message {}

/// Set what the builder calls differently in the two generations.
pub fn choose_database(builder: DbConnectionBuilder<Chat>, options: &Value) -> DbConnectionBuilder<Chat> {
    builder.with_database_name(options["database"].as_str().expect("a name"))
}

/// In this generation the answer belongs to the call.
pub fn watch_reducers(_imp: &DbContextImpl<Chat>) {}

pub fn call(imp: &DbContextImpl<Chat>, reducer: Reducer) {
    let told = |context: &Context<ReducerEvent<Reducer>>, result| {
        let (status, text) = match result {
            Ok(Ok(())) => ("committed", None),
            Ok(Err(text)) => ("failed", Some(text)),
            Err(error @ InternalError { .. }) => ("internal error", Some(error.to_string())),
        };
        say(json!({"event": "result", "reducer": context.event.reducer.name(), "status": status, "text": text}));
    };
    imp.invoke_reducer_with_callback(reducer, told).expect("a connection");
}

pub fn subscribe_to_all(builder: SubscriptionBuilder<Chat>) -> Option<Subscription> {
    Some(builder.subscribe_to_all_tables())
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
    type Procedures = Unused;
    type DbUpdate = DbUpdate;
    type AppliedDiff<'r> = AppliedDiff<'r>;
    type SubscriptionHandle = Subscription;
    type QueryBuilder = Queries;

    fn register_tables(cache: &mut sdk::ClientCache<Self>) {
        chat::register_tables(cache);
    }

    const ALL_TABLE_NAMES: &'static [&'static str] = &[chat::User::TABLE, chat::Message::TABLE];
}

impl sdk::Reducer for Reducer {
    fn reducer_name(&self) -> &'static str {
        self.name()
    }
    fn args_bsatn(&self) -> Result<Vec<u8>, bsatn::EncodeError> {
        match self {
            Self::SetName(arguments) => bsatn::to_vec(arguments),
            Self::SendMessage(arguments) => bsatn::to_vec(arguments),
            Self::NoSuchReducer(arguments) => bsatn::to_vec(arguments),
        }
    }
}

impl std::fmt::Debug for DbUpdate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DbUpdate").finish_non_exhaustive()
    }
}

impl TryFrom<v2::TransactionUpdate> for DbUpdate {
    type Error = Error;
    fn try_from(update: v2::TransactionUpdate) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for table in sdk::transaction_update_iter_table_updates(update) {
            match &*table.table_name {
                chat::User::TABLE => parsed.user.append(sdk::TableUpdate::parse_table_update(table)?),
                chat::Message::TABLE => parsed.message.append(sdk::TableUpdate::parse_table_update(table)?),
                other => return Err(unknown_table(other)),
            }
        }
        Ok(parsed)
    }
}

impl sdk::DbUpdate for DbUpdate {
    fn apply_to_client_cache(&self, cache: &mut sdk::ClientCache<Chat>) -> AppliedDiff<'_> {
        self.apply(cache)
    }

    fn parse_initial_rows(rows: v2::QueryRows) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for table in rows.tables {
            match &*table.table {
                chat::User::TABLE => parsed.user.append(sdk::parse_row_list_as_inserts(table.rows)?),
                chat::Message::TABLE => parsed.message.append(sdk::parse_row_list_as_inserts(table.rows)?),
                other => return Err(unknown_table(other)),
            }
        }
        Ok(parsed)
    }

    fn parse_unsubscribe_rows(rows: v2::QueryRows) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for table in rows.tables {
            match &*table.table {
                chat::User::TABLE => parsed.user.append(sdk::parse_row_list_as_deletes(table.rows)?),
                chat::Message::TABLE => parsed.message.append(sdk::parse_row_list_as_deletes(table.rows)?),
                other => return Err(unknown_table(other)),
            }
        }
        Ok(parsed)
    }
}

fn unknown_table(name: &str) -> Error {
    InternalError::unknown_name("table", name, "a message").into()
}
