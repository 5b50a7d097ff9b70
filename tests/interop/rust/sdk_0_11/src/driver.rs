//! Commands arrive as JSON lines on stdin, what happened leaves as JSON lines on stdout.
//!
//! The SDK has one connection a process, which may be made anew, and tells what it takes for a mistake of the server to
//! the log: every such line is an event, `warning`.

use std::io::BufRead;

use serde_json::{json, Value};
use spacetimedb_sdk::anyhow::Result;
use spacetimedb_sdk::identity::{self, Credentials, Identity, Token};
use spacetimedb_sdk::log::{Level, LevelFilter, Log, Metadata, Record};
use spacetimedb_sdk::reducer::{Reducer, Status};
use spacetimedb_sdk::sats::de::{serde::DeserializeWrapper, DeserializeOwned};
use spacetimedb_sdk::sats::ser::{serde::SerializeWrapper, Serialize};
use spacetimedb_sdk::table::{TableType, TableWithPrimaryKey};

/// A module's bindings, made by `bindings!`.
pub trait Module {
    fn connect(&self, url: &str, database: &str, credentials: Option<Credentials>) -> Result<()>;
    fn watch(&self);
    fn call(&self, reducer: &str, arguments: &str) -> Result<()>;
    fn rows(&self, table: &str) -> Vec<String>;
}

/// What changed a row, where it is a call of a reducer with bindings.
pub struct Event {
    pub reducer: &'static str,
}

struct Complaints;

impl Log for Complaints {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("spacetimedb_sdk")
    }
    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            say(json!({"event": "warning", "text": record.args().to_string()}));
        }
    }
    fn flush(&self) {}
}

/// Print an event.
fn say(event: Value) {
    println!("{event}");
}

/// Obey commands until stdin ends.
pub fn run(module: &dyn Module) {
    std::panic::set_hook(Box::new(|panic| say(json!({"event": "crash", "text": panic.to_string()}))));
    spacetimedb_sdk::log::set_logger(&Complaints).expect("the only logger");
    spacetimedb_sdk::log::set_max_level(LevelFilter::Warn);
    identity::on_connect(|credentials, address| {
        let (identity, address) = (credentials.identity.to_hex().to_string(), address.to_hex().to_string());
        let token = credentials.token.string();
        say(json!({"event": "connected", "identity": identity, "token": token, "address": address}));
    });
    spacetimedb_sdk::on_subscription_applied(|| say(json!({"event": "applied"})));
    spacetimedb_sdk::on_disconnect(|| say(json!({"event": "disconnected"})));
    module.watch();
    say(json!({"event": "ready"}));
    for line in std::io::stdin().lock().lines() {
        obey(module, &serde_json::from_str(&line.expect("a line")).expect("JSON"));
    }
}

fn obey(module: &dyn Module, command: &Value) {
    match text(command, "do") {
        "connect" => {
            if let Err(error) = module.connect(text(command, "url"), text(command, "database"), credentials(command)) {
                say(json!({"event": "connect error", "text": format!("{error:#}")}));
            }
        }
        "subscribe" => {
            let queries = command["queries"].as_array().expect("queries");
            let queries = queries.iter().map(|query| query.as_str().expect("SQL").into()).collect();
            spacetimedb_sdk::subscribe_owned(queries).expect("a connection");
        }
        "call" => module.call(text(command, "reducer"), text(command, "args")).expect("a connection"),
        "rows" => {
            let (table, rows) = (text(command, "table"), module.rows(text(command, "table")).join(","));
            println!(r#"{{"event": "rows", "table": "{table}", "rows": [{rows}]}}"#);
        }
        "save" => {
            let credentials = identity::credentials().expect("an identity");
            identity::save_credentials(text(command, "directory"), &credentials).expect("a place for it");
            say(json!({"event": "save"}));
        }
        "disconnect" => spacetimedb_sdk::disconnect(),
        other => panic!("unknown command {other}"),
    }
}

/// Return who connects: as saved, as given, or nobody yet.
fn credentials(options: &Value) -> Option<Credentials> {
    if let Some(directory) = options["saved"].as_str() {
        return identity::load_credentials(directory).expect("what was saved");
    }
    options["token"].as_str().map(|token| {
        let written = format!(r#"{{"__identity_bytes": "{}"}}"#, text(options, "identity"));
        Credentials { identity: typed::<Identity>(&written), token: Token::from_string(token.into()) }
    })
}

/// Return a value as JSON text, in which 128 bits stay whole.
pub fn plain<T: Serialize>(value: &T) -> String {
    serde_json::to_string(SerializeWrapper::from_ref(value)).expect("JSON")
}

/// Return the value of a JSON text.
pub fn typed<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str::<DeserializeWrapper<T>>(text).expect("a value of that type").0
}

fn tell<T: TableType>(what: &str, row: &T, event: Option<&Event>, old: Option<&T>) {
    let (table, row, why) = (T::TABLE_NAME, plain(row), event.map_or("none", |event| event.reducer));
    let old = old.map_or("null".into(), plain);
    println!(r#"{{"event": "{what}", "table": "{table}", "row": {row}, "old": {old}, "why": "{why}"}}"#);
}

/// Tell of the rows of a table that come and go.
pub fn watch<T: TableType<ReducerEvent = Event>>() {
    T::on_insert(|row, event| tell("insert", row, event, None));
    T::on_delete(|row, event| tell("delete", row, event, None));
}

/// Tell of the rows of a table with a key.
pub fn watch_keyed<T: TableWithPrimaryKey<ReducerEvent = Event>>() {
    watch::<T>();
    T::on_update(|old, row, event| tell("update", row, event, Some(old)));
}

/// Tell of every call of a reducer that this client hears of.
pub fn watch_reducer<R: Reducer>() {
    R::on_reducer(|caller, address, status, arguments| {
        let (status, text) = match status {
            Status::Committed => ("committed", None),
            Status::Failed(text) => ("failed", Some(text)),
            Status::OutOfEnergy => ("out of energy", None),
        };
        let head = json!({"caller": caller.to_hex().to_string(), "address": address.map(|it| it.to_hex().to_string()),
                          "status": status, "text": text});
        let (reducer, args) = (R::REDUCER_NAME, plain(arguments));
        println!(r#"{{"event": "result", "reducer": "{reducer}", "args": {args}, "told": {head}}}"#);
    });
}

/// Tell of an event that is no call of a reducer with bindings.
pub fn tell_unbound(name: &str, text: Option<&str>) {
    say(json!({"event": "unbound", "reducer": name, "text": text}));
}

fn text<'a>(options: &'a Value, key: &str) -> &'a str {
    options[key].as_str().unwrap_or_else(|| panic!("{key} must be a string in {options}"))
}
