/* A guest that calls the host as it is told.

   What it is called with is a script: steps, one byte each with what it needs (`c_guest.py` writes them). Every
   function of the host can be called with any numbers, bytes can be put anywhere into ROOM, and what came of it is
   reported as a row of the table `outp` or as what the function returns. `module.h` is made for each module: what it
   declares, scripts of its views, which reducer is scheduled. */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define HOST(version, name) __attribute__((import_module("spacetime_" version), import_name(#name))) extern
#define EXPORT(name) __attribute__((export_name(name)))

/* Pointers are plain numbers here: that they can be wrong is the point. */
HOST("10.0", table_id_from_name) i32 table_id_from_name(u32, u32, u32);
HOST("10.0", index_id_from_name) i32 index_id_from_name(u32, u32, u32);
HOST("10.0", datastore_table_row_count) i32 datastore_table_row_count(u32, u32);
HOST("10.0", datastore_table_scan_bsatn) i32 datastore_table_scan_bsatn(u32, u32);
HOST("10.0", datastore_index_scan_range_bsatn)
i32 datastore_index_scan_range_bsatn(u32, u32, u32, u32, u32, u32, u32, u32, u32);
HOST("10.0", datastore_btree_scan_bsatn)
i32 datastore_btree_scan_bsatn(u32, u32, u32, u32, u32, u32, u32, u32, u32);
HOST("10.0", datastore_delete_by_index_scan_range_bsatn)
i32 datastore_delete_by_index_scan_range_bsatn(u32, u32, u32, u32, u32, u32, u32, u32, u32);
HOST("10.0", datastore_delete_by_btree_scan_bsatn)
i32 datastore_delete_by_btree_scan_bsatn(u32, u32, u32, u32, u32, u32, u32, u32, u32);
HOST("10.0", datastore_delete_all_by_eq_bsatn) i32 datastore_delete_all_by_eq_bsatn(u32, u32, u32, u32);
HOST("10.0", row_iter_bsatn_advance) i32 row_iter_bsatn_advance(u32, u32, u32);
HOST("10.0", row_iter_bsatn_close) i32 row_iter_bsatn_close(u32);
HOST("10.0", datastore_insert_bsatn) i32 datastore_insert_bsatn(u32, u32, u32);
HOST("10.0", datastore_update_bsatn) i32 datastore_update_bsatn(u32, u32, u32, u32);
HOST("10.0", volatile_nonatomic_schedule_immediate)
void volatile_nonatomic_schedule_immediate(u32, u32, u32, u32);
HOST("10.0", bytes_sink_write) i32 bytes_sink_write(u32, u32, u32);
HOST("10.0", bytes_source_read) i32 bytes_source_read(u32, u32, u32);
HOST("10.0", console_log) void console_log(u32, u32, u32, u32, u32, u32, u32, u32);
HOST("10.0", console_timer_start) i32 console_timer_start(u32, u32);
HOST("10.0", console_timer_end) i32 console_timer_end(u32);
HOST("10.0", identity) void identity(u32);
HOST("10.1", bytes_source_remaining_length) i32 bytes_source_remaining_length(u32, u32);
HOST("10.2", get_jwt) i32 get_jwt(u32, u32);
HOST("10.3", procedure_sleep_until) i64 procedure_sleep_until(i64);
HOST("10.3", procedure_start_mut_tx) i32 procedure_start_mut_tx(u32);
HOST("10.3", procedure_commit_mut_tx) i32 procedure_commit_mut_tx(void);
HOST("10.3", procedure_abort_mut_tx) i32 procedure_abort_mut_tx(void);
HOST("10.3", procedure_http_request) i32 procedure_http_request(u32, u32, u32, u32, u32);
HOST("10.4", datastore_index_scan_point_bsatn) i32 datastore_index_scan_point_bsatn(u32, u32, u32, u32);
HOST("10.4", datastore_delete_by_index_scan_point_bsatn)
i32 datastore_delete_by_index_scan_point_bsatn(u32, u32, u32, u32);
HOST("10.5", datastore_clear) i32 datastore_clear(u32, u32);

#include "module.h" /* DESCRIPTION, VIEWS, VIEW_PLACES, SCHEDULED_REDUCER */

#define PAGE_BYTES 65536
#define ROOM_BYTES (1 << 20)
#define SCRIPT_BYTES (1 << 18)
#define OPERANDS_MAX 10
#define GOES_ON (-1)

static u8 room[ROOM_BYTES];
static u8 script[SCRIPT_BYTES];
static u8 circumstances[56]; /* sender, connection, timestamp */
static u32 sinks[2], sources[2];
static i64 result;           /* of the last call of the host */
static u64 counter;          /* survives calls as long as the instance does */

typedef struct { const u8 *at, *end; } Steps;

static u32 address(const void *place) { return (u32)place; }

static void copy(u8 *to, const u8 *from, u32 size) {
  while (size--) *to++ = *from++;
}

static u64 number(Steps *steps, u32 size) {
  u64 value = 0;
  for (u32 i = 0; i < size; i++) value |= (u64)*steps->at++ << (8 * i);
  return value;
}

static u64 in_room(u32 place, u32 size) {
  Steps there = {room + place, room + place + size};
  return number(&there, size);
}

static void put(u32 place, u64 value, u32 size) {
  for (u32 i = 0; i < size; i++) room[place + i] = (u8)(value >> (8 * i));
}

/* A value that a step needs, and where it comes from. */
static u64 operand(Steps *steps) {
  switch (number(steps, 1)) {
    case 0: return number(steps, 4);
    case 1: return address(room) + (u32)number(steps, 4);
    case 2: return in_room((u32)number(steps, 4), 4);
    case 3: return number(steps, 8);
    case 4: return in_room((u32)number(steps, 4), 8);
    case 5: return sinks[number(steps, 1)];
    case 6: return sources[number(steps, 1)];
    case 7: return (u32)__builtin_wasm_memory_size(0) * PAGE_BYTES - (u32)number(steps, 4);
    case 8: return (u64)result;
    case 9: return counter;
  }
  __builtin_trap();
}

static i64 call(u32 function, const u64 *a) {
  switch (function) {
    case 0: return table_id_from_name(a[0], a[1], a[2]);
    case 1: return index_id_from_name(a[0], a[1], a[2]);
    case 2: return datastore_table_row_count(a[0], a[1]);
    case 3: return datastore_table_scan_bsatn(a[0], a[1]);
    case 4: return datastore_index_scan_range_bsatn(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
    case 5: return datastore_btree_scan_bsatn(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
    case 6: return datastore_delete_by_index_scan_range_bsatn(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
    case 7: return datastore_delete_by_btree_scan_bsatn(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
    case 8: return datastore_delete_all_by_eq_bsatn(a[0], a[1], a[2], a[3]);
    case 9: return row_iter_bsatn_advance(a[0], a[1], a[2]);
    case 10: return row_iter_bsatn_close(a[0]);
    case 11: return datastore_insert_bsatn(a[0], a[1], a[2]);
    case 12: return datastore_update_bsatn(a[0], a[1], a[2], a[3]);
    case 13: volatile_nonatomic_schedule_immediate(a[0], a[1], a[2], a[3]); return 0;
    case 14: return bytes_sink_write(a[0], a[1], a[2]);
    case 15: return bytes_source_read(a[0], a[1], a[2]);
    case 16: console_log(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]); return 0;
    case 17: return console_timer_start(a[0], a[1]);
    case 18: return console_timer_end(a[0]);
    case 19: identity(a[0]); return 0;
    case 20: return bytes_source_remaining_length(a[0], a[1]);
    case 21: return get_jwt(a[0], a[1]);
    case 22: return procedure_sleep_until((i64)a[0]);
    case 23: return procedure_start_mut_tx(a[0]);
    case 24: return procedure_commit_mut_tx();
    case 25: return procedure_abort_mut_tx();
    case 26: return procedure_http_request(a[0], a[1], a[2], a[3], a[4]);
    case 27: return datastore_index_scan_point_bsatn(a[0], a[1], a[2], a[3]);
    case 28: return datastore_delete_by_index_scan_point_bsatn(a[0], a[1], a[2], a[3]);
    case 29: return datastore_clear(a[0], a[1]);
  }
  __builtin_trap();
}

/* Read an iterator to its end; its bytes lie at `place`, how many they are before them. */
static i64 drain(u32 iterator, u32 place) {
  u32 used = 0;
  for (;;) {
    u32 size = ROOM_BYTES - place - 4 - used;
    i32 code = row_iter_bsatn_advance(iterator, address(room + place + 4 + used), address(&size));
    if (code > 0) return code;
    used += size;
    put(place, used, 4);
    if (code < 0) return 0;
  }
}

static void say(u32 sink, const u8 *from, u32 size) {
  if (bytes_sink_write(sink, address(from), address(&size))) __builtin_trap();
}

/* Insert (n, tag, what the last call returned, counter, data) into `outp`. */
static void report(const u8 *tag, u32 tag_size, const u8 *data, u32 data_size) {
  static u8 row[1 << 17];
  u32 table = 0, size = 8;
  for (u32 i = 0; i < 8; i++) row[i] = 0;
#define APPEND(value, bytes) for (u32 i = 0; i < (bytes); i++) row[size++] = (u8)((u64)(value) >> (8 * i))
  APPEND(tag_size, 4);
  copy(row + size, tag, tag_size), size += tag_size;
  APPEND((u32)result, 4);
  APPEND(counter, 8);
  APPEND(data_size, 4);
  copy(row + size, data, data_size), size += data_size;
#undef APPEND
  if (table_id_from_name(address("outp"), 4, address(&table))) __builtin_trap();
  if (datastore_insert_bsatn(table, address(row), address(&size))) __builtin_trap();
}

__attribute__((noinline)) static u32 deep(u32 n) {
  volatile u8 frame[256];
  frame[n & 255] = (u8)n;
  return n ? deep(n - 1) + frame[n & 255] : 0;
}

/* Return a code to return, or GOES_ON. */
static i32 run(const u8 *from, u32 size) {
  Steps steps = {from, from + size};
  while (steps.at < steps.end) {
    u32 place, length;
    u64 operands[OPERANDS_MAX] = {0};
    switch (number(&steps, 1)) {
      case 0: /* put bytes */
        place = (u32)number(&steps, 4), length = (u32)number(&steps, 4);
        copy(room + place, steps.at, length), steps.at += length;
        break;
      case 1: { /* call the host */
        u32 function = (u32)number(&steps, 1), count = (u32)number(&steps, 1);
        for (u32 i = 0; i < count; i++) operands[i] = operand(&steps);
        result = call(function, operands);
        break;
      }
      case 2: return (i32)number(&steps, 1);
      case 3: __builtin_trap();
      case 4: /* put a value: place, bytes */
        place = (u32)number(&steps, 4), length = (u32)number(&steps, 1);
        put(place, operand(&steps), length);
        break;
      case 5: { /* copy: to, from, how much */
        place = (u32)number(&steps, 4);
        u32 there = (u32)number(&steps, 4);
        copy(room + place, room + there, (u32)operand(&steps));
        break;
      }
      case 6: { /* report: tag, place, how much */
        length = (u32)number(&steps, 1);
        const u8 *tag = steps.at;
        steps.at += length;
        place = (u32)number(&steps, 4);
        report(tag, length, room + place, (u32)operand(&steps));
        break;
      }
      case 7: counter = operand(&steps); break;
      case 8: /* read an iterator to its end: iterator, place */
        operands[0] = operand(&steps);
        result = drain((u32)operands[0], (u32)number(&steps, 4));
        break;
      case 9: result = (i64)(i32)__builtin_wasm_memory_grow(0, (u32)operand(&steps)); break;
      case 10: for (;;) __asm__ volatile("");
      case 11: result = deep((u32)operand(&steps)); break;
      case 12: /* trap unless the last call returned this */
        if ((u32)result != (u32)number(&steps, 4)) __builtin_trap();
        break;
      case 13: { /* return bytes: sink, place, how much */
        u32 sink = sinks[number(&steps, 1)];
        place = (u32)number(&steps, 4);
        say(sink, room + place, (u32)operand(&steps));
        break;
      }
      case 14: copy(room + (u32)number(&steps, 4), circumstances, sizeof circumstances); break;
      case 15: /* add to the counter, which is put there */
        counter += number(&steps, 4);
        put((u32)number(&steps, 4), counter, 8);
        break;
      case 16: /* put a sum: place, two values */
        place = (u32)number(&steps, 4);
        operands[0] = operand(&steps), operands[1] = operand(&steps);
        put(place, operands[0] + operands[1], 8);
        break;
      default: __builtin_trap();
    }
  }
  return GOES_ON;
}

static u32 read_source(u32 source, u8 *to, u32 size) {
  if (!source) return 0;
  u32 length = size;
  if (bytes_source_read(source, address(to), address(&length)) >= 0) __builtin_trap();
  return length;
}

static void enter(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, i64 timestamp, u32 source, u32 sink) {
  u64 words[7] = {a, b, c, d, e, f, (u64)timestamp};
  copy(circumstances, (const u8 *)words, sizeof words);
  sources[0] = source, sinks[0] = sink;
}

/* Arguments are one array of bytes. */
static i32 run_arguments(u32 source) {
  u32 size = read_source(source, script, sizeof script);
  i32 code = size < 4 ? GOES_ON : run(script + 4, size - 4);
  return code == GOES_ON ? 0 : code;
}

EXPORT("__describe_module__") void describe(u32 sink) { say(sink, DESCRIPTION, sizeof DESCRIPTION); }

EXPORT("__call_reducer__")
i32 call_reducer(u32 id, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, i64 timestamp, u32 source, u32 sink) {
  enter(a, b, c, d, e, f, timestamp, source, sink);
  if (id == SCHEDULED_REDUCER) {
    u32 size = read_source(source, script, sizeof script);
    report((const u8 *)"scheduled", 9, script, size);
    return 0;
  }
  return run_arguments(source);
}

EXPORT("__call_procedure__")
i32 call_procedure(u32 id, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, i64 timestamp, u32 source, u32 sink) {
  enter(a, b, c, d, e, f, timestamp, source, sink);
  return run_arguments(source);
}

static i32 run_view(u32 index) {
  i32 code = run(VIEWS + VIEW_PLACES[index][0], VIEW_PLACES[index][1]);
  return code == GOES_ON ? 2 : code;
}

EXPORT("__call_view__") i32 call_view(u32 index, u64 a, u64 b, u64 c, u64 d, u32 source, u32 sink) {
  enter(a, b, c, d, 0, 0, 0, source, sink);
  return run_view(index);
}

EXPORT("__call_view_anon__") i32 call_view_anon(u32 index, u32 source, u32 sink) {
  enter(0, 0, 0, 0, 0, 0, 0, source, sink);
  return run_view(index);
}

/* The body of a request is a script. */
EXPORT("__call_http_handler__")
i32 call_http_handler(u32 id, i64 timestamp, u32 request, u32 body, u32 response, u32 response_body) {
  enter(0, 0, 0, 0, 0, 0, timestamp, request, response);
  sources[1] = body, sinks[1] = response_body;
  u32 size = read_source(body, script, sizeof script);
  i32 code = run(script, size);
  return code == GOES_ON ? 0 : code;
}
