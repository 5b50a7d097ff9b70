// npm `@clockworklabs/spacetimedb-sdk` 1.3.3: SubscribeMulti over v1.bsatn, module objects like its generated code.
import { AlgebraicType, BinaryWriter, DbConnectionBuilder, ProductTypeElement,
  SubscriptionBuilderImpl, SumTypeVariant } from '@clockworklabs/spacetimedb-sdk';
import { build, subscribe, tellResult, watch } from './common.mjs';

// What `modules.mjs` is written with; this SDK has no such functions of its own.
const column = type => ({ type, primaryKey: () => ({ type, isPrimaryKey: true }) });
const t = {
  bool: () => column(AlgebraicType.createBoolType()), string: () => column(AlgebraicType.createStringType()),
  u32: () => column(AlgebraicType.createU32Type()), u64: () => column(AlgebraicType.createU64Type()),
  identity: () => column(AlgebraicType.createIdentityType()),
  timestamp: () => column(AlgebraicType.createTimestampType()),
  array: ({ type }) => column(AlgebraicType.createArrayType(type)),
  object: (_name, columns) => column(product(columns)),
  enum: (_name, variants) => column(AlgebraicType.createSumType(
    variants.map(variant => new SumTypeVariant(variant, AlgebraicType.createProductType([]))))),
  option: ({ type }) => column(AlgebraicType.createOptionType(type)),
  row: columns => columns,
};
const product = columns => AlgebraicType.createProductType(
  Object.entries(columns).map(([name, { type }]) => new ProductTypeElement(name, type)));
const table = ({ name: tableName }, columns) => {
  const made = { tableName, rowType: product(columns) };
  for (const [name, { type, isPrimaryKey }] of Object.entries(columns))
    if (isPrimaryKey) Object.assign(made, { primaryKey: name, primaryKeyInfo: { colName: name, colType: type } });
  return made;
};
const reducerSchema = (reducerName, parameters) => ({ reducerName, argsType: product(parameters) });

const remoteOf = ({ tables, reducers }) => ({
  tables,
  reducers: Object.fromEntries(Object.values(reducers).map(reducer => [reducer.reducerName, reducer])),
  versionInfo: { cliVersion: '1.3.0' },
  eventContextConstructor: (connection, event) => ({ ...connection, event }),
  dbViewConstructor: connection => connection,
  reducersConstructor: connection => connection,
  setReducerFlagsConstructor: () => ({}),
});

export function connect(options) {
  const { database, module, say } = options;
  const { tables, reducers } = module({ t, table, reducerSchema });
  const builder = new DbConnectionBuilder(remoteOf({ tables, reducers }), made => made).withModuleName(database);
  // This SDK reports the end of any connection as a connect error; it never calls onDisconnect.
  const connection = build(builder, { ...options, failure: 'disconnected' });
  const cache = name => connection.clientCache.getOrCreateTable(tables[name]);
  for (const name in tables) watch(name, cache(name), options);
  for (const name in reducers) connection.onReducer(reducers[name].reducerName, tellResult(name, say));
  return {
    tables: Object.keys(tables),
    subscribe: (...rest) => subscribe(new SubscriptionBuilderImpl(connection), ...rest),
    call: (name, args) => {
      const { reducerName, argsType } = reducers[name];
      const writer = new BinaryWriter(1024);
      argsType.serialize(writer, args);
      connection.callReducer(reducerName, writer.getBuffer(), 'FullUpdate');
    },
    count: name => cache(name).count(),
    rows: name => cache(name).iter(),
    disconnect: () => connection.disconnect(),
  };
}
