// npm `@clockworklabs/spacetimedb-sdk` 1.3.3: SubscribeMulti over v1.bsatn, hand-made module object.
import { AlgebraicType, BinaryWriter, DbConnectionBuilder, DbConnectionImpl, ProductTypeElement,
  SubscriptionBuilderImpl } from '@clockworklabs/spacetimedb-sdk';

const product = fields => AlgebraicType.createProductType(
  Object.entries(fields).map(([name, type]) => new ProductTypeElement(name, type)));
const userType = product({ identity: AlgebraicType.createIdentityType(),
  name: AlgebraicType.createOptionType(AlgebraicType.createStringType()), online: AlgebraicType.createBoolType() });
const messageType = product({ id: AlgebraicType.createU64Type(), sender: AlgebraicType.createIdentityType(),
  sent: AlgebraicType.createTimestampType(), text: AlgebraicType.createStringType() });
const primaryKey = (type, name, index) =>
  ({ primaryKey: name, primaryKeyInfo: { colName: name, colType: type.product.elements[index].algebraicType } });
const string = name => product({ [name]: AlgebraicType.createStringType() });
const argumentTypes = { set_name: string('name'), send_message: string('text'), no_such_reducer: product({}) };
const wire = { setName: 'set_name', sendMessage: 'send_message', noSuchReducer: 'no_such_reducer' };
const remote = {
  tables: {
    user: { tableName: 'user', rowType: userType, ...primaryKey(userType, 'identity', 0) },
    message: { tableName: 'message', rowType: messageType, ...primaryKey(messageType, 'id', 0) },
  },
  reducers: Object.fromEntries(Object.entries(argumentTypes).map(([reducerName, argsType]) =>
    [reducerName, { reducerName, argsType }])),
  versionInfo: { cliVersion: '1.3.0' },
  eventContextConstructor: (connection, event) => ({ ...connection, event }),
  dbViewConstructor: connection => connection,
  reducersConstructor: connection => connection,
  setReducerFlagsConstructor: () => ({}),
};

export function connect({ url, database, token, compression, say, plain }) {
  let connection;
  const builder = new DbConnectionBuilder(remote, made => made)
    .withUri(url).withModuleName(database).withCompression(compression ?? 'none')
    .onConnect((_connection, identity, received) =>
      say({ event: 'connected', identity: identity.toHexString(), token: received }))
    // This SDK reports the end of any connection as a connect error; it never calls onDisconnect.
    .onConnectError((_context, error) => say({ event: 'disconnected', text: String(error?.message ?? error) }))
    .onDisconnect(() => say({ event: 'disconnected' }));
  connection = (token ? builder.withToken(token) : builder).build();
  const table = name => connection.clientCache.getOrCreateTable(remote.tables[name]);
  for (const name of ['user', 'message']) {
    table(name).onInsert((_context, row) => say({ event: 'insert', table: name, row: plain[name](row) }));
    table(name).onDelete((_context, row) => say({ event: 'delete', table: name, row: plain[name](row) }));
    table(name).onUpdate((_context, old, row) =>
      say({ event: 'update', table: name, old: plain[name](old), row: plain[name](row) }));
  }
  for (const [name, wireName] of Object.entries(wire))
    connection.onReducer(wireName, context => {
      const status = context.event.status;
      say({ event: 'result', reducer: name, status: status.tag.toLowerCase(), text: status.value?.toString() });
    });
  return {
    subscribe: (queries, applied, failed) => {
      const handle = new SubscriptionBuilderImpl(connection).onApplied(applied)
        .onError((context, error) => failed(String(error?.message ?? context.event?.message ?? context.event)))
        .subscribe(queries);
      return { unsubscribeThen: done => handle.unsubscribeThen(done) };
    },
    call: (reducer, args) => {
      const writer = new BinaryWriter(1024);
      argumentTypes[wire[reducer]].serialize(writer, args);
      connection.callReducer(wire[reducer], writer.getBuffer(), 'FullUpdate');
    },
    count: name => table(name).count(),
    rows: name => table(name).iter(),
    disconnect: () => connection.disconnect(),
  };
}
