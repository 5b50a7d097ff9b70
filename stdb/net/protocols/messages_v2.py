"""The messages of v2 and v3 as algebraic types: the declarative twin of `v2_bsatn`.

Responsible for: every v2 message in both directions (spec 02 section 8, SubscribeBatch: spec 09 section 2.1).
Not responsible for: speed; what the server sends and takes is hand-written and tested against these types.
"""

from stdb.net.protocols.messages_v1 import QUERY_ID, ROW_LIST, product, sum_
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    STRING,
    TIME_DURATION,
    TIMESTAMP,
    U8,
    U32,
    UNIT,
    Array,
    option,
    result,
)

__all__ = ["CLIENT_MESSAGE", "SERVER_MESSAGE"]

_QUERY_ROWS = product(tables=Array(product(table=STRING, rows=ROW_LIST)))
_TABLE_UPDATE_ROWS = sum_(
    PersistentTable=product(inserts=ROW_LIST, deletes=ROW_LIST), EventTable=product(events=ROW_LIST)
)
_TABLE_UPDATE = product(table_name=STRING, rows=Array(_TABLE_UPDATE_ROWS))
_TRANSACTION_UPDATE = product(query_sets=Array(product(query_set_id=QUERY_ID, tables=Array(_TABLE_UPDATE))))

CLIENT_MESSAGE = sum_(
    Subscribe=product(request_id=U32, query_set_id=QUERY_ID, query_strings=Array(STRING)),
    Unsubscribe=product(request_id=U32, query_set_id=QUERY_ID, flags=sum_(Default=UNIT, SendDroppedRows=UNIT)),
    OneOffQuery=product(request_id=U32, query_string=STRING),
    CallReducer=product(request_id=U32, flags=U8, reducer=STRING, args=BYTES),
    CallProcedure=product(request_id=U32, flags=U8, procedure=STRING, args=BYTES),
    SubscribeBatch=product(request_id=U32, sets=Array(product(query_set_id=QUERY_ID, query_strings=Array(STRING)))),
)
"""What a client sends."""

SERVER_MESSAGE = sum_(
    InitialConnection=product(identity=IDENTITY, connection_id=CONNECTION_ID, token=STRING),
    SubscribeApplied=product(request_id=U32, query_set_id=QUERY_ID, rows=_QUERY_ROWS),
    UnsubscribeApplied=product(request_id=U32, query_set_id=QUERY_ID, rows=option(_QUERY_ROWS)),
    SubscriptionError=product(request_id=option(U32), query_set_id=QUERY_ID, error=STRING),
    TransactionUpdate=_TRANSACTION_UPDATE,
    OneOffQueryResult=product(request_id=U32, result=result(_QUERY_ROWS, STRING)),
    ReducerResult=product(
        request_id=U32,
        timestamp=TIMESTAMP,
        result=sum_(
            Ok=product(ret_value=BYTES, transaction_update=_TRANSACTION_UPDATE),
            OkEmpty=UNIT,
            Err=BYTES,
            InternalError=STRING,
        ),
    ),
    ProcedureResult=product(
        status=sum_(Returned=BYTES, InternalError=STRING),
        timestamp=TIMESTAMP,
        total_host_execution_duration=TIME_DURATION,
        request_id=U32,
    ),
    SubscribeBatchApplied=product(
        request_id=U32,
        results=Array(product(query_set_id=QUERY_ID, outcome=sum_(Applied=_QUERY_ROWS, Error=STRING))),
    ),
)
"""What the server sends behind the compression tag."""
