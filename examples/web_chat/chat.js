// A chat in the browser: the npm SDK, no framework. Bindings for the module `quickstart_chat` come first.
import { DbConnectionBuilder, DbConnectionImpl, SubscriptionBuilderImpl, procedures, reducerSchema, reducers, schema,
  t, table } from 'spacetimedb';

const tables = schema({
  user: table({ name: 'user', indexes: [], constraints: [] },
    t.row({ identity: t.identity().primaryKey(), name: t.option(t.string()), online: t.bool() })),
  message: table({ name: 'message', indexes: [], constraints: [] },
    t.row({ id: t.u64().primaryKey(), sender: t.identity(), sent: t.timestamp(), text: t.string() })),
});
const functions = reducers(reducerSchema('set_name', { name: t.string() }),
  reducerSchema('send_message', { text: t.string() }));
const remote = { versionInfo: { cliVersion: '2.0.0' }, tables: tables.schemaType.tables,
  reducers: functions.reducersType.reducers, ...procedures() };

class Connection extends DbConnectionImpl {
  subscriptionBuilder = () => new SubscriptionBuilderImpl(this);
}

const $ = id => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const server = parameters.get('server') ?? 'ws://127.0.0.1:3000';
const database = parameters.get('database') ?? 'quickstart-chat';
const tokenKey = `stdb token ${server}/${database}`;

const connection = new DbConnectionBuilder(remote, config => new Connection(config))
  .withUri(server).withDatabaseName(database).withToken(localStorage.getItem(tokenKey) ?? undefined)
  .onConnect((_connection, _identity, token) => {
    localStorage.setItem(tokenKey, token);
    status('connected');
    connection.subscriptionBuilder().onApplied(draw)
      .onError(context => status(`subscription refused: ${context.event}`))
      .subscribe(['SELECT * FROM user', 'SELECT * FROM message']);
  })
  .onConnectError((_context, error) => status(`cannot connect to ${server}: ${error.message ?? 'no answer'}`))
  .onDisconnect(() => status('disconnected: reload to come back'))
  .build();

const status = text => { $('status').textContent = text; };
const nameOf = identity => connection.db.user.identity.find(identity)?.name ?? identity.toHexString().slice(0, 8);

function draw() {
  $('users').replaceChildren(...[...connection.db.user.iter()].filter(user => user.online)
    .map(user => item(nameOf(user.identity))));
  $('messages').replaceChildren(...[...connection.db.message.iter()]
    .sort((a, b) => (a.sent.microsSinceUnixEpoch < b.sent.microsSinceUnixEpoch ? -1 : 1))
    .map(message => item(`${nameOf(message.sender)}: ${message.text}`)));
  $('messages').lastChild?.scrollIntoView();
}

function item(text) {
  const element = document.createElement('li');
  element.textContent = text;
  return element;
}

connection.db.user.onInsert(draw);
connection.db.user.onUpdate(draw);
connection.db.message.onInsert(draw);

for (const [form, reducer, argument] of [['name', 'setName', 'name'], ['say', 'sendMessage', 'text']])
  $(form).addEventListener('submit', event => {
    event.preventDefault();
    const field = $(form).elements.text;
    connection.reducers[reducer]({ [argument]: field.value })
      .then(() => { field.value = ''; status('connected'); }, error => status(error.message));
  });
