//! Commands arrive as JSON lines on stdin, what happened leaves as JSON lines on stdout, as `node/driver.mjs` has them.

use std::collections::HashMap;
use std::io::BufRead;

use serde_json::{json, Value};
use spacetimedb_sdk::__codegen::{DbContextImpl, SubscriptionBuilder, SubscriptionHandle};
use spacetimedb_sdk::unstable::{set_connection_id, CLIENT_METRICS};
use spacetimedb_sdk::{Compression, ConnectionId, DbConnectionBuilder, Event, Timestamp};

use crate::chat::{Chat, Connection, Message, Posted, Reducer, Row, SendMessage, Subscription, User};

/// Print an event.
pub fn say(event: Value) {
    println!("{event}");
}

/// Obey commands until stdin ends.
pub fn run() {
    std::panic::set_hook(Box::new(|panic| say(json!({"event": "crash", "text": panic.to_string()}))));
    let mut session = Session::default();
    say(json!({"event": "ready"}));
    for line in std::io::stdin().lock().lines() {
        session.obey(&serde_json::from_str(&line.expect("a line")).expect("JSON"));
    }
}

#[derive(Default)]
struct Session {
    connection: Option<DbContextImpl<Chat>>,
    database: String,
    subscriptions: HashMap<String, Subscription>,
}

impl Session {
    fn obey(&mut self, command: &Value) {
        match text(command, "do") {
            "connect" => self.connect(command),
            "subscribe" => self.subscribe(command),
            "unsubscribe" => self.unsubscribe(text(command, "name")),
            "call" => crate::call(self.connection(), Reducer::new(text(command, "reducer"), &command["args"])),
            "run" => self.run(text(command, "procedure"), &command["args"]),
            "rows" => match text(command, "table") {
                User::TABLE => self.rows::<User>(),
                Message::TABLE => self.rows::<Message>(),
                other => panic!("unknown table {other}"),
            },
            "received" => self.received(),
            "disconnect" => self.connection().disconnect().expect("a connection"),
            other => panic!("unknown command {other}"),
        }
    }

    fn connection(&self) -> &DbContextImpl<Chat> {
        self.connection.as_ref().expect("a connection")
    }

    fn connect(&mut self, options: &Value) {
        if let Some(id) = options["connection_id"].as_str() {
            set_connection_id(ConnectionId::from_hex(id).expect("a connection id")).expect("the first connection");
        }
        self.database = text(options, "database").to_string();
        match builder(options).build() {
            Ok(Connection(imp)) => {
                watch::<User>(&imp);
                watch::<Message>(&imp);
                crate::watch_reducers(&imp);
                imp.run_threaded();
                self.connection = Some(imp);
            }
            Err(error) => say(json!({"event": "connect error", "text": error.to_string()})),
        }
    }

    fn subscribe(&mut self, options: &Value) {
        let name = text(options, "name").to_string();
        let (applied, failed) = (name.clone(), name.clone());
        let builder = SubscriptionBuilder::new(self.connection())
            .on_applied(move |context| {
                let users = context.imp.get_table::<User>(User::TABLE).count();
                let messages = context.imp.get_table::<Message>(Message::TABLE).count();
                say(json!({"event": "applied", "name": applied, "users": users, "messages": messages}));
            })
            .on_error(move |_context, error| {
                say(json!({"event": "subscription error", "name": failed, "text": error.to_string()}));
            });
        let handle = match &options["queries"] {
            Value::Array(queries) => {
                let sql: Vec<String> = queries.iter().map(|query| query.as_str().expect("SQL").into()).collect();
                Some(builder.subscribe(sql))
            }
            Value::String(kind) if kind == "typed" => Some(self.subscribe_typed(builder)),
            Value::String(kind) if kind == "joined" => Some(subscribe_joined(builder)),
            _ => crate::subscribe_to_all(builder),
        };
        self.subscriptions.extend(handle.map(|handle| (name, handle)));
    }

    /// Subscribe, through the typed queries, to who is online and to this client's messages but those about "it's".
    fn subscribe_typed(&self, builder: SubscriptionBuilder<Chat>) -> Subscription {
        let me = self.connection().try_identity().expect("an identity");
        builder
            .add_query(|from| from.user().filter(|user| user.online.eq(true)).build())
            .add_query(move |from| {
                from.message()
                    .filter(|message| message.sender.eq(me))
                    .filter(|message| message.text.ne("it's".to_string()))
                    .filter(|message| message.sent.gt(Timestamp::UNIX_EPOCH))
                    .build()
            })
            .subscribe()
    }

    /// Call a procedure; all of them take a text.
    fn run(&self, procedure: &str, arguments: &Value) {
        let name = match procedure {
            "post_later" => "post_later",
            "no_such_procedure" => "no_such_procedure",
            other => panic!("unknown procedure {other}"),
        };
        let arguments = SendMessage { text: text(arguments, "text").to_string() };
        self.connection().invoke_procedure_with_callback::<_, Posted>(name, arguments, move |_context, result| {
            say(match result {
                Ok(Posted { id, words, left }) => {
                    json!({"event": "returned", "procedure": name, "value": {"id": id, "words": words, "left": left}})
                }
                Err(error) => json!({"event": "raised", "procedure": name, "text": error.to_string()}),
            });
        });
    }

    fn unsubscribe(&mut self, name: &str) {
        let handle = self.subscriptions.remove(name).expect("a subscription of that name");
        let event = json!({"event": "unsubscribed", "name": name});
        handle.unsubscribe_then(Box::new(move |_context| say(event))).expect("an active subscription");
    }

    fn rows<R: Row>(&self) {
        let rows: Vec<Value> = self.connection().get_table::<R>(R::TABLE).iter().map(|row| row.plain()).collect();
        say(json!({"event": "rows", "table": R::TABLE, "rows": rows}));
    }

    /// Tell how many messages the SDK counted, and their size as they came, before decompression.
    fn received(&self) {
        let database: Box<str> = self.database.as_str().into();
        let messages = CLIENT_METRICS.websocket_received.with_label_values(&database).get();
        let bytes = CLIENT_METRICS.websocket_received_msg_size.with_label_values(&database).get_sample_sum();
        say(json!({"event": "received", "messages": messages, "bytes": bytes as u64}));
    }
}

/// Subscribe, through a typed query, to the messages of who is online.
fn subscribe_joined(builder: SubscriptionBuilder<Chat>) -> Subscription {
    builder
        .add_query(|from| {
            from.user()
                .filter(|user| user.online.eq(true))
                .right_semijoin(from.message(), |user, message| user.who.eq(message.who))
                .build()
        })
        .subscribe()
}

fn builder(options: &Value) -> DbConnectionBuilder<Chat> {
    let mut builder = crate::choose_database(DbConnectionBuilder::new(), options)
        .with_uri(text(options, "url"))
        .with_token(options["token"].as_str())
        .on_connect(|connection: &Connection, identity, token| {
            let connection_id = connection.0.connection_id().to_hex().to_string();
            let identity = identity.to_hex().to_string();
            say(json!({"event": "connected", "identity": identity, "token": token, "connection_id": connection_id}));
        })
        .on_connect_error(|_context, error| say(json!({"event": "connect error", "text": error.to_string()})))
        .on_disconnect(|_context, error| {
            say(json!({"event": "disconnected", "text": error.map(|error| error.to_string())}));
        });
    if let Some(compression) = options["compression"].as_str() {
        builder = builder.with_compression(match compression {
            "none" => Compression::None,
            "gzip" => Compression::Gzip,
            "brotli" => Compression::Brotli,
            other => panic!("unknown compression {other}"),
        });
    }
    match options["confirmed"].as_bool() {
        Some(confirmed) => builder.with_confirmed_reads(confirmed),
        None => builder,
    }
}

fn watch<R: Row>(imp: &DbContextImpl<Chat>) {
    let table = imp.get_table::<R>(R::TABLE);
    table.on_insert(|context, row| tell("insert", &context.event, row));
    table.on_delete(|context, row| tell("delete", &context.event, row));
    table.on_update(|context, old, row| {
        let why = why(&context.event);
        say(json!({"event": "update", "table": R::TABLE, "old": old.plain(), "row": row.plain(), "why": why}));
    });
}

fn tell<R: Row>(what: &str, event: &Event<Reducer>, row: &R) {
    say(json!({"event": what, "table": R::TABLE, "row": row.plain(), "why": why(event)}));
}

fn why(event: &Event<Reducer>) -> &'static str {
    match event {
        Event::Reducer(call) => call.reducer.name(),
        Event::SubscribeApplied => "subscribed",
        Event::UnsubscribeApplied => "unsubscribed",
        _ => "transaction",
    }
}

fn text<'a>(options: &'a Value, key: &str) -> &'a str {
    options[key].as_str().unwrap_or_else(|| panic!("{key} must be a string in {options}"))
}
