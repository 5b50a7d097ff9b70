// The module that the recorded servers of 0.8, 0.10 and 0.11 ran, by ABI 7, 8 or 9; def_11.h or def_8.h is made for it.
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
#ifdef DEFH
#include DEFH
#elif VER==11
#include "def_11.h"
#endif
#ifndef ABI
#define ABI "spacetime_9.0"
#endif
#if VER==11
#define IMP(n) __attribute__((import_module(ABI),import_name(#n)))
#elif VER==10
#include "def_8.h"
#define IMP(n) __attribute__((import_module("spacetime_8.0"),import_name(#n)))
#else
#include "def_8.h"
#define IMP(n) __attribute__((import_module("spacetime_7.0"),import_name(#n)))
#endif
IMP(_get_table_id) u32 _get_table_id(const u8*,u32,u32*);
IMP(_insert) u32 _insert(u32,u8*,u32);
IMP(_delete_by_col_eq) u32 _delete_by_col_eq(u32,u32,const u8*,u32,u32*);
IMP(_iter_by_col_eq) u32 _iter_by_col_eq(u32,u32,const u8*,u32,u32*);
IMP(_console_log) void _console_log(u32,const u8*,u32,const u8*,u32,u32,const u8*,u32);
IMP(_buffer_alloc) u32 _buffer_alloc(const u8*,u32);
IMP(_buffer_len) u32 _buffer_len(u32);
IMP(_buffer_consume) void _buffer_consume(u32,u8*,u32);
#if VER>=10
IMP(_iter_advance) u32 _iter_advance(u32,u8*,u32*);
IMP(_iter_drop) void _iter_drop(u32);
#else
IMP(_iter_next) u32 _iter_next(u32,u32*);
IMP(_iter_drop) u32 _iter_drop(u32);
#endif
#if VER<11
IMP(_schedule_reducer) void _schedule_reducer(const u8*,u32,const u8*,u32,u64,u64*);
#endif
#define EXP(n) __attribute__((export_name(#n)))
static u8 mem[1<<20]; static u32 pos;
static u8 args[1<<20]; static u32 alen;
static u8 sender[32], addr[16];
void *memcpy(void*d,const void*s,unsigned long n){u8*a=d;const u8*b=s;while(n--)*a++=*b++;return d;}
void *memset(void*d,int c,unsigned long n){u8*a=d;while(n--)*a++=c;return d;}
static u32 slen(const char*s){u32 n=0;while(s[n])n++;return n;}
static void W(const void*p,u32 n){memcpy(mem+pos,p,n);pos+=n;}
static void w8(u8 x){W(&x,1);} static void w32(u32 x){W(&x,4);} static void w64(u64 x){W(&x,8);}
static void wb(const void*p,u32 n){w32(n);W(p,n);} static void ws(const char*s){wb(s,slen(s));}
static void wid(void){wb(sender,32);}
static void rst(void){pos=0;}
static u32 tid(const char*n){u32 t=0; if(_get_table_id((const u8*)n,slen(n),&t))__builtin_trap(); return t;}
static void logm(u32 lvl,const char*m){_console_log(lvl,(const u8*)"probe",5,(const u8*)"mod.c",5,__LINE__,(const u8*)m,slen(m));}
static u32 err(const char*m){return _buffer_alloc((const u8*)m,slen(m));}
static u32 insert(const char*t){return _insert(tid(t),mem,pos);}
#define OK 0xFFFFFFFFu
static u32 u32at(u32 o){u32 x;memcpy(&x,args+o,4);return x;}
static u64 u64at(u32 o){u64 x;memcpy(&x,args+o,8);return x;}
// first row of table t with col==val(mem[0..pos)) -> row[]
static u8 row[65536]; static u32 rowlen;
static int find(const char*t,u32 col){
  u32 h; if(_iter_by_col_eq(tid(t),col,mem,pos,&h))return 0;
#if VER>=10
  rowlen=sizeof row; u32 r=_iter_advance(h,row,&rowlen); _iter_drop(h); return r==0&&rowlen>0;
#else
  rowlen=_buffer_len(h); _buffer_consume(h,row,rowlen); return rowlen>0;
#endif
}
static u32 del(const char*t,u32 col){u32 n=0; _delete_by_col_eq(tid(t),col,mem,pos,&n); return n;}
static void put_user(const u8*name,u32 namelen,int has,int online){
  rst();wid();del("User",0);
  rst();wid();w8(has?0:1);if(has)wb(name,namelen);w8(online);insert("User");
}
static void set_online(int on){
  rst();wid();
  if(find("User",0)){ // row: 4+32 ident, tag..., online last
    static u8 nm[4096];u32 has=row[36]==0,n=0; if(has){memcpy(&n,row+37,4);memcpy(nm,row+41,n);} put_user(nm,n,has,on);
  } else put_user(0,0,0,on);
}
static void message(u64 ts,const u8*p,u32 n){rst();wid();w64(ts);wb(p,n);insert("Message");}
static void hex(const u8*p,u32 n,char*o){for(u32 i=0;i<n;i++){o[2*i]="0123456789abcdef"[p[i]>>4];o[2*i+1]="0123456789abcdef"[p[i]&15];}o[2*n]=0;}
EXP(__setup__) u32 setup(void){
#ifdef FAIL_SETUP
 return err("setup failed");
#endif
 return OK;}
EXP(__describe_module__) u32 describe(void){return _buffer_alloc(DEF,DEF_LEN);}
EXP(__preinit__00_x) void pre(void){}
EXP(__call_reducer__) u32 call(u32 id,u32 sb,u32 ab,u64 ts,u32 argb){
  if(_buffer_len(sb)!=32||_buffer_len(ab)!=16){logm(0,"bad sender/address length");__builtin_trap();}
  _buffer_consume(sb,sender,32);_buffer_consume(ab,addr,16);
  alen=_buffer_len(argb);if(alen>sizeof args)__builtin_trap();_buffer_consume(argb,args,alen);
  static char tmp[256];
#ifdef FAIL_IN
  if(id==FAIL_IN){message(ts,(const u8*)"x",1);
#ifdef FAIL_TRAP
   __builtin_trap();
#else
   return err("refused by the module");
#endif
  }
#endif
  switch(id){
  case R_INIT: rst();w32(1);ws("top secret");insert("Secret"); hex(addr,16,tmp);logm(2,"init, caller address:");logm(2,tmp); message(ts,(const u8*)"init",4); return OK;
#ifdef R_UPDATE
  case R_UPDATE:
#ifdef UPD_MSG
  message(ts,(const u8*)"update",6);
#endif
  hex(addr,16,tmp);logm(2,"update, caller address:");logm(2,tmp); return OK;
#endif
  case R_IDENTITY_CONNECTED: hex(addr,16,tmp);logm(2,"connected:");logm(2,tmp); set_online(1); return OK;
  case R_IDENTITY_DISCONNECTED: hex(addr,16,tmp);logm(2,"disconnected:");logm(2,tmp); set_online(0); return OK;
  case R_SET_NAME: {u32 n=u32at(0); if(!n)return err("Names must not be empty"); static u8 nm[4096];memcpy(nm,args+4,n); put_user(nm,n,1,1); return OK;}
  case R_SEND_MESSAGE: {u32 n=u32at(0); if(!n)return err("Messages must not be empty"); message(ts,args+4,n); return OK;}
  case R_ADD_ITEM: rst();w32(0);W(args,alen); if(insert("Item"))return err("insert failed"); return OK;
  case R_SET_QTY: {rst();w32(u32at(0)); if(!find("Item",0))return err("no such item"); u32 q=u32at(4); del("Item",0); memcpy(row+rowlen-4,&q,4); _insert(tid("Item"),row,rowlen); return OK;}
  case R_DELETE_ITEM: rst();w32(u32at(0)); if(!del("Item",0))return err("no such item"); return OK;
  case R_FAIL: message(ts,(const u8*)"rolled back",11); return _buffer_alloc(args+4,u32at(0));
  case R_TRAP: message(ts,(const u8*)"rolled back",11); logm(2,"about to trap"); __builtin_trap();
  case R_NOP: return OK;
  case R_PUT_KINDS: rst();W(args,alen); if(insert("Kinds"))return err("insert failed"); return OK;
  case R_TYPED: {hex(args,alen,tmp); message(ts,(const u8*)tmp,2*alen<255?2*alen:255); return OK;}
  case R_CHURN: { // insert a new row and delete it again; delete+reinsert an existing row; update twice
    rst();w32(900001);w32(0);ws("ghost");w32(0);insert("Item"); rst();w32(900001);del("Item",0);
    rst();w32(u32at(0)); if(!find("Item",0))return err("no such item");
    del("Item",0); _insert(tid("Item"),row,rowlen); return OK; }
  case R_LOG_ALL: logm(0,"an error");logm(1,"a warning");logm(2,"an info");logm(3,"a debug");logm(4,"a trace");logm(101,"a panic line");return OK;
  case R_ADD_OWNER: rst();W(args,alen); {u32 r=insert("Owner"); if(r==3)return err("owner exists"); if(r)return err("insert failed");} return OK;
  case R_MASS: {u32 n=u32at(0),b=u32at(4); for(u32 i=0;i<n;i++){rst();w32(b+i);w32(7);ws("mass item");w32(i);insert("Item");} return OK;}
#if VER==11
  case R_SCHEDULE: {u32 n=u32at(0); rst();w64(0);w8(0);w64(ts+u64at(4+n));wb(args+4,n);insert("Timer");return OK;}
  case R_REPEAT: {u32 n=u32at(0); rst();w64(0);w8(1);w64(u64at(4+n));wb(args+4,n);insert("Timer");return OK;}
  case R_ON_TIMER: {hex(addr,16,tmp);logm(2,"timer, caller address:");logm(2,tmp); message(ts,args+4+17,u32at(17)); return OK;}
#else
  case R_SCHEDULE: {u32 n=u32at(0); u64 h; _schedule_reducer((const u8*)"on_timer",8,args,4+n,ts+u64at(4+n),&h);return OK;}
  case R_REPEAT: return OK;
  case R_ON_TIMER: hex(addr,16,tmp);logm(2,"timer, caller address:");logm(2,tmp); message(ts,args+4,u32at(0)); return OK;
#endif
  }
  return err("unknown reducer id");
}
