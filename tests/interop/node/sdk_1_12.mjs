// npm `spacetimedb` 1.12: SubscribeMulti over v1.bsatn, schema objects.
import { DbConnectionBuilder, DbConnectionImpl, SubscriptionBuilderImpl, procedures, reducerSchema, reducers, schema,
  t, table } from 'spacetimedb';
import { build, subscribe, tellResult, watch } from './common.mjs';

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

export function connect(options) {
  const { database, say } = options;
  const builder = new DbConnectionBuilder(remote, config => new Connection(config)).withModuleName(database);
  const connection = build(builder, options);
  for (const name of ['user', 'message']) watch(name, connection.db[name], options);
  for (const [name, hook] of [['setName', 'onSetName'], ['sendMessage', 'onSendMessage'],
    ['noSuchReducer', 'onNoSuchReducer']])
    connection.reducers[hook](tellResult(name, say));
  return {
    subscribe: (...rest) => subscribe(connection.subscriptionBuilder(), ...rest),
    call: (reducer, args) => connection.reducers[reducer](args),
    count: name => connection.db[name].count(),
    rows: name => [...connection.db[name].iter()],
    disconnect: () => connection.disconnect(),
  };
}
