//! The example chat module as the SDK wants a module described; what both generations have in common.
//!
//! The SDK's traits ask for a type per kind of context; here one generic `Context` is all of them, and table handles
//! are the SDK's own.

use serde_json::{json, Value};
use spacetimedb_sdk::__codegen::{self as sdk, __lib, __query_builder as query, DbContextImpl};
use spacetimedb_sdk::{Error, Event, Identity, ReducerEvent, Timestamp};

/// Names the module in the SDK's generic types.
#[derive(Debug)]
pub struct Chat;

macro_rules! of_chat {
    ($($name:ty),*) => {$(impl sdk::InModule for $name { type Module = Chat; })*};
}
of_chat!(User, Message, SetName, SendMessage, NoSuchReducer, Reducer, Connection, Subscription, DbUpdate, Unused);

#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, PartialEq, Debug)]
#[sats(crate = __lib)]
pub struct User {
    pub identity: Identity,
    pub name: Option<String>,
    pub online: bool,
}

#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, PartialEq, Debug)]
#[sats(crate = __lib)]
pub struct Message {
    pub id: u64,
    pub sender: Identity,
    pub sent: Timestamp,
    pub text: String,
}

/// A row that can be told as JSON.
pub trait Row: sdk::InModule<Module = Chat> + Clone + Send + Sync + 'static {
    const TABLE: &'static str;
    fn plain(&self) -> Value;
}

impl Row for User {
    const TABLE: &'static str = "user";
    fn plain(&self) -> Value {
        json!({"identity": self.identity.to_hex().to_string(), "name": self.name, "online": self.online})
    }
}

impl Row for Message {
    const TABLE: &'static str = "message";
    fn plain(&self) -> Value {
        json!({"id": self.id, "sender": self.sender.to_hex().to_string(), "text": self.text,
               "sent": self.sent.to_micros_since_unix_epoch()})
    }
}

#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, Debug)]
#[sats(crate = __lib)]
pub struct SetName {
    pub name: String,
}

#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, Debug)]
#[sats(crate = __lib)]
pub struct SendMessage {
    pub text: String,
}

/// A reducer that the server's module lacks.
#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, Debug)]
#[sats(crate = __lib)]
pub struct NoSuchReducer {}

/// What the procedure `post_later` returns.
#[derive(__lib::ser::Serialize, __lib::de::Deserialize, Clone, Debug)]
#[sats(crate = __lib)]
pub struct Posted {
    pub id: u64,
    pub words: Vec<String>,
    pub left: Option<u32>,
}

#[derive(Clone, Debug)]
pub enum Reducer {
    SetName(SetName),
    SendMessage(SendMessage),
    NoSuchReducer(NoSuchReducer),
}

impl Reducer {
    pub const NAMES: [&'static str; 3] = ["set_name", "send_message", "no_such_reducer"];

    /// Return the call that a command asks for.
    pub fn new(name: &str, arguments: &Value) -> Self {
        let text = |key: &str| arguments[key].as_str().expect("a string").to_string();
        match name {
            "set_name" => Self::SetName(SetName { name: text("name") }),
            "send_message" => Self::SendMessage(SendMessage { text: text("text") }),
            "no_such_reducer" => Self::NoSuchReducer(NoSuchReducer {}),
            other => panic!("unknown reducer {other}"),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::SetName(_) => Self::NAMES[0],
            Self::SendMessage(_) => Self::NAMES[1],
            Self::NoSuchReducer(_) => Self::NAMES[2],
        }
    }
}

/// What callbacks are given: the connection, and the event they are called for.
pub struct Context<E> {
    pub imp: DbContextImpl<Chat>,
    pub event: E,
}

impl<E> sdk::InModule for Context<E> {
    type Module = Chat;
}

impl<E: Send + 'static> sdk::AbstractEventContext for Context<E> {
    type Event = E;
    fn event(&self) -> &E {
        &self.event
    }
    fn new(imp: DbContextImpl<Chat>, event: E) -> Self {
        Self { imp, event }
    }
}

impl sdk::EventContext for Context<Event<Reducer>> {}
impl sdk::ReducerEventContext for Context<ReducerEvent<Reducer>> {}
impl sdk::ProcedureEventContext for Context<()> {}
impl sdk::SubscriptionEventContext for Context<()> {}
impl sdk::ErrorContext for Context<Option<Error>> {}

pub struct Connection(pub DbContextImpl<Chat>);

impl sdk::DbConnection for Connection {
    fn new(imp: DbContextImpl<Chat>) -> Self {
        Self(imp)
    }
}

#[derive(Clone)]
pub struct Subscription(sdk::SubscriptionHandleImpl<Chat>);

impl sdk::SubscriptionHandle for Subscription {
    fn new(imp: sdk::SubscriptionHandleImpl<Chat>) -> Self {
        Self(imp)
    }
    fn is_ended(&self) -> bool {
        self.0.is_ended()
    }
    fn is_active(&self) -> bool {
        self.0.is_active()
    }
    fn unsubscribe_then(self, on_end: sdk::OnEndedCallback<Chat>) -> sdk::Result<()> {
        self.0.unsubscribe_then(Some(on_end))
    }
    fn unsubscribe(self) -> sdk::Result<()> {
        self.0.unsubscribe_then(None)
    }
}

/// Stands where the SDK wants a type that these programs have no use for.
pub struct Unused;

/// The rows of one message, by table.
#[derive(Default)]
pub struct DbUpdate {
    pub user: sdk::TableUpdate<User>,
    pub message: sdk::TableUpdate<Message>,
}

/// What a `DbUpdate` changed in the client's cache.
pub struct AppliedDiff<'r> {
    user: sdk::TableAppliedDiff<'r, User>,
    message: sdk::TableAppliedDiff<'r, Message>,
}

impl sdk::InModule for AppliedDiff<'_> {
    type Module = Chat;
}

impl<'r> sdk::AppliedDiff<'r> for AppliedDiff<'r> {
    fn invoke_row_callbacks(&self, event: &Context<Event<Reducer>>, callbacks: &mut sdk::DbCallbacks<Chat>) {
        callbacks.invoke_table_row_callbacks(User::TABLE, &self.user, event);
        callbacks.invoke_table_row_callbacks(Message::TABLE, &self.message, event);
    }
}

impl DbUpdate {
    pub fn apply(&self, cache: &mut sdk::ClientCache<Chat>) -> AppliedDiff<'_> {
        AppliedDiff {
            user: cache.apply_diff_to_table(User::TABLE, &self.user).with_updates_by_pk(|row| &row.identity),
            message: cache.apply_diff_to_table(Message::TABLE, &self.message).with_updates_by_pk(|row| &row.id),
        }
    }
}

/// Tell the cache about the tables; a wrong update of a table with unique columns makes the SDK panic.
pub fn register_tables(cache: &mut sdk::ClientCache<Chat>) {
    cache.get_or_make_table::<User>(User::TABLE).add_unique_constraint("identity", |row: &User| &row.identity);
    cache.get_or_make_table::<Message>(Message::TABLE).add_unique_constraint("id", |row: &Message| &row.id);
}

pub struct UserColumns {
    pub online: query::Col<User, bool>,
}

impl query::HasCols for User {
    type Cols = UserColumns;
    fn cols(table: &'static str) -> UserColumns {
        UserColumns { online: query::Col::new(table, "online") }
    }
}

pub struct MessageColumns {
    pub sender: query::Col<Message, Identity>,
    pub sent: query::Col<Message, Timestamp>,
    pub text: query::Col<Message, String>,
}

impl query::HasCols for Message {
    type Cols = MessageColumns;
    fn cols(table: &'static str) -> MessageColumns {
        MessageColumns {
            sender: query::Col::new(table, "sender"),
            sent: query::Col::new(table, "sent"),
            text: query::Col::new(table, "text"),
        }
    }
}

/// The columns that users and messages are joined by.
pub struct IndexedColumns<R> {
    pub who: query::IxCol<R, Identity>,
}

impl query::HasIxCols for User {
    type IxCols = IndexedColumns<User>;
    fn ix_cols(table: &'static str) -> Self::IxCols {
        IndexedColumns { who: query::IxCol::new(table, "identity") }
    }
}

impl query::HasIxCols for Message {
    type IxCols = IndexedColumns<Message>;
    fn ix_cols(table: &'static str) -> Self::IxCols {
        IndexedColumns { who: query::IxCol::new(table, "sender") }
    }
}

/// Where typed queries start.
#[derive(Default)]
pub struct Queries;

impl Queries {
    pub fn user(&self) -> query::Table<User> {
        query::Table::new(User::TABLE)
    }
    pub fn message(&self) -> query::Table<Message> {
        query::Table::new(Message::TABLE)
    }
}
