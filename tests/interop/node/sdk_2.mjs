// npm `spacetimedb` 2.x: query sets over v2.bsatn or v3.bsatn.
import * as sdk from 'spacetimedb';
import { build, run, subscribe, watch } from './common.mjs';

class Connection extends sdk.DbConnectionImpl {
  subscriptionBuilder = () => new sdk.SubscriptionBuilderImpl(this);
}

export function connect(options) {
  const { database, module, say } = options;
  const { tables, reducers, procedures = {} } = module(sdk);
  const remote = { versionInfo: { cliVersion: '2.0.0' }, tables: sdk.schema(tables).schemaType.tables,
    reducers: sdk.reducers(...Object.values(reducers)).reducersType.reducers, ...sdk.procedures(...Object.values(procedures)) };
  const builder = new sdk.DbConnectionBuilder(remote, config => new Connection(config)).withDatabaseName(database);
  const connection = build(builder, options);
  for (const name in tables) watch(name, connection.db[name], options);
  return {
    tables: Object.keys(tables),
    subscribe: (...rest) => subscribe(connection.subscriptionBuilder(), ...rest),
    call: (reducer, args) => connection.reducers[reducer](args).then(
      () => say({ event: 'result', reducer, status: 'committed' }),
      error => say({ event: 'result', reducer, status: 'failed', kind: error?.constructor?.name, text: error?.message })),
    run: (procedure, args) => run(connection.procedures, procedure, args, say),
    count: name => connection.db[name].count(),
    rows: name => [...connection.db[name].iter()],
    disconnect: () => connection.disconnect(),
  };
}
