"""The messages of v1 as algebraic types: the declarative twin of `v1_requests`, `v1_bsatn` and `v1_json`.

Responsible for: every v1 message in both directions, for BSATN and for JSON (spec 02 sections 5 to 7).
Not responsible for: speed; what the server sends and takes is hand-written and tested against these types.
"""

from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    STRING,
    TIME_DURATION,
    TIMESTAMP,
    U8,
    U16,
    U32,
    U64,
    U128,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Product,
    Sum,
    option,
)

__all__ = [
    "CLIENT_MESSAGE",
    "JSON_CLIENT_MESSAGE",
    "JSON_SERVER_MESSAGE",
    "QUERY_ID",
    "ROW_LIST",
    "SERVER_MESSAGE",
    "product",
    "sum_",
]


def product(**elements: AlgebraicType) -> Product:
    """Return the product of the named elements."""
    return Product(tuple(Element(name, type_) for name, type_ in elements.items()))


def sum_(**variants: AlgebraicType) -> Sum:
    """Return the sum of the named variants."""
    return Sum(tuple(Element(name, type_) for name, type_ in variants.items()))


QUERY_ID = product(id=U32)
ROW_LIST = product(size_hint=sum_(FixedSize=U16, RowOffsets=Array(U64)), rows_data=BYTES)
_ENERGY = product(quanta=U128)


def _client_message(args: AlgebraicType) -> Sum:
    return sum_(
        CallReducer=product(reducer=STRING, args=args, request_id=U32, flags=U8),
        Subscribe=product(query_strings=Array(STRING), request_id=U32),
        OneOffQuery=product(message_id=BYTES, query_string=STRING),
        SubscribeSingle=product(query=STRING, request_id=U32, query_id=QUERY_ID),
        SubscribeMulti=product(query_strings=Array(STRING), request_id=U32, query_id=QUERY_ID),
        Unsubscribe=product(request_id=U32, query_id=QUERY_ID),
        UnsubscribeMulti=product(request_id=U32, query_id=QUERY_ID),
        CallProcedure=product(procedure=STRING, args=args, request_id=U32, flags=U8),
    )


def _server_message(args: AlgebraicType, rows: AlgebraicType, compressable: bool) -> Sum:
    query_update: AlgebraicType = product(deletes=rows, inserts=rows)
    if compressable:
        query_update = sum_(Uncompressed=query_update, Brotli=BYTES, Gzip=BYTES)
    table_update = product(table_id=U32, table_name=STRING, num_rows=U64, updates=Array(query_update))
    database_update = product(tables=Array(table_update))
    applied = product(
        request_id=U32,
        total_host_execution_duration_micros=U64,
        query_id=QUERY_ID,
        rows=product(table_id=U32, table_name=STRING, table_rows=table_update),
    )
    multi_applied = product(
        request_id=U32, total_host_execution_duration_micros=U64, query_id=QUERY_ID, update=database_update
    )
    return sum_(
        InitialSubscription=product(
            database_update=database_update, request_id=U32, total_host_execution_duration=TIME_DURATION
        ),
        TransactionUpdate=product(
            status=sum_(Committed=database_update, Failed=STRING, OutOfEnergy=UNIT),
            timestamp=TIMESTAMP,
            caller_identity=IDENTITY,
            caller_connection_id=CONNECTION_ID,
            reducer_call=product(reducer_name=STRING, reducer_id=U32, args=args, request_id=U32),
            energy_quanta_used=_ENERGY,
            total_host_execution_duration=TIME_DURATION,
        ),
        TransactionUpdateLight=product(request_id=U32, update=database_update),
        IdentityToken=product(identity=IDENTITY, token=STRING, connection_id=CONNECTION_ID),
        OneOffQueryResponse=product(
            message_id=BYTES,
            error=option(STRING),
            tables=Array(product(table_name=STRING, rows=rows)),
            total_host_execution_duration=TIME_DURATION,
        ),
        SubscribeApplied=applied,
        UnsubscribeApplied=applied,
        SubscriptionError=product(
            total_host_execution_duration_micros=U64,
            request_id=option(U32),
            query_id=option(U32),
            table_id=option(U32),
            error=STRING,
        ),
        SubscribeMultiApplied=multi_applied,
        UnsubscribeMultiApplied=multi_applied,
        ProcedureResult=product(
            status=sum_(Returned=args, OutOfEnergy=UNIT, InternalError=STRING),
            timestamp=TIMESTAMP,
            total_host_execution_duration=TIME_DURATION,
            request_id=U32,
        ),
    )


CLIENT_MESSAGE = _client_message(BYTES)
"""What a v1.bsatn client sends; `args` are BSATN."""
JSON_CLIENT_MESSAGE = _client_message(STRING)
"""What a v1.json client sends; `args` are a JSON text inside the JSON."""
SERVER_MESSAGE = _server_message(BYTES, ROW_LIST, True)
"""What the server sends behind the compression tag of v1.bsatn."""
JSON_SERVER_MESSAGE = _server_message(STRING, Array(STRING), False)
"""What the server sends on v1.json; each row is a JSON text of its own."""
