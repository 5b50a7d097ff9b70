// npm `@clockworklabs/spacetimedb-sdk` 1.3.3: SubscribeMulti over v1.bsatn, hand-made module object (the chat).
import { AlgebraicType, BinaryWriter, DbConnectionBuilder, DbConnectionImpl, ProductTypeElement,
  SubscriptionBuilderImpl } from '@clockworklabs/spacetimedb-sdk';
import { build, subscribe, tellResult, watch } from './common.mjs';

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

export function connect(options) {
  const { database, say } = options;
  const builder = new DbConnectionBuilder(remote, made => made).withModuleName(database);
  // This SDK reports the end of any connection as a connect error; it never calls onDisconnect.
  const connection = build(builder, { ...options, failure: 'disconnected' });
  const table = name => connection.clientCache.getOrCreateTable(remote.tables[name]);
  for (const name of ['user', 'message']) watch(name, table(name), options);
  for (const [name, wireName] of Object.entries(wire)) connection.onReducer(wireName, tellResult(name, say));
  return {
    tables: Object.keys(remote.tables),
    subscribe: (...rest) => subscribe(new SubscriptionBuilderImpl(connection), ...rest),
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
