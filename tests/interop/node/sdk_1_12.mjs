// npm `spacetimedb` 1.12: SubscribeMulti over v1.bsatn, schema objects.
import { DbConnectionBuilder, DbConnectionImpl, SubscriptionBuilderImpl, procedures, reducerSchema, reducers, schema,
  t, table } from 'spacetimedb';

const tables = schema(
  table({ name: 'user', indexes: [], constraints: [] },
    t.row({ identity: t.identity().primaryKey(), name: t.option(t.string()), online: t.bool() })),
  table({ name: 'message', indexes: [], constraints: [] },
    t.row({ id: t.u64().primaryKey(), sender: t.identity(), sent: t.timestamp(), text: t.string() })));
const functions = reducers(reducerSchema('set_name', { name: t.string() }),
  reducerSchema('send_message', { text: t.string() }), reducerSchema('no_such_reducer', {}));
const remote = { versionInfo: { cliVersion: '1.12.0' }, tables: tables.schemaType.tables,
  reducers: functions.reducersType.reducers, ...procedures() };

class Connection extends DbConnectionImpl {
  subscriptionBuilder = () => new SubscriptionBuilderImpl(this);
}

export function connect({ url, database, token, compression, say, plain }) {
  const builder = new DbConnectionBuilder(remote, config => new Connection(config))
    .withUri(url).withModuleName(database).withCompression(compression ?? 'none')
    .onConnect((_connection, identity, received) =>
      say({ event: 'connected', identity: identity.toHexString(), token: received }))
    .onConnectError((_context, error) => say({ event: 'connect error', text: String(error?.message ?? error) }))
    .onDisconnect(() => say({ event: 'disconnected' }));
  const connection = (token ? builder.withToken(token) : builder).build();
  for (const name of ['user', 'message']) {
    const handle = connection.db[name];
    handle.onInsert((_context, row) => say({ event: 'insert', table: name, row: plain[name](row) }));
    handle.onDelete((_context, row) => say({ event: 'delete', table: name, row: plain[name](row) }));
    handle.onUpdate?.((_context, old, row) =>
      say({ event: 'update', table: name, old: plain[name](old), row: plain[name](row) }));
  }
  for (const [name, hook] of [['setName', 'onSetName'], ['sendMessage', 'onSendMessage'],
    ['noSuchReducer', 'onNoSuchReducer']])
    connection.reducers[hook](context => {
      const status = context.event.status;
      say({ event: 'result', reducer: name, status: status.tag.toLowerCase(), text: status.value?.toString() });
    });
  return {
    subscribe: (queries, applied, failed) => {
      const handle = connection.subscriptionBuilder().onApplied(applied)
        .onError((context, error) => failed(String(error?.message ?? context.event?.message ?? context.event)))
        .subscribe(queries);
      return { unsubscribeThen: done => handle.unsubscribeThen(done) };
    },
    call: (reducer, args) => connection.reducers[reducer](args),
    count: name => connection.db[name].count(),
    rows: name => [...connection.db[name].iter()],
    disconnect: () => connection.disconnect(),
  };
}
