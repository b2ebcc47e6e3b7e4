/* The parts of a device's side of the protocol that can be got wrong, in plain C11.
 *
 * Written from docs/protocol.md alone. No memory is allocated but by json.c and patch.c; no part
 * keeps state between calls. Functions that judge answer 1 for yes and 0 for no.
 */
#ifndef ARGOSY_CLIENT_H
#define ARGOSY_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#define CHUNK_BYTES 65536u
#define CHUNK_HEAD_BYTES 20u
#define MAX_WINDOW 64u
#define DIGEST_BYTES 32u

/* sha256.c: FIPS 180-4 */
typedef struct {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
  size_t used;
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, const void *data, size_t size);
void sha256_end(sha256 *hash, uint8_t digest[DIGEST_BYTES]);
void sha256_of(const void *data, size_t size, uint8_t digest[DIGEST_BYTES]);

/* json.c: RFC 8259, nothing more lenient */
typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT } json_kind;

typedef struct json {
  json_kind kind;
  int truth;         /* JSON_BOOL */
  double number;     /* JSON_NUMBER */
  int whole;         /* JSON_NUMBER: an integer that fits into 63 bits, then in `integer` */
  int64_t integer;
  char *text;        /* JSON_TEXT, UTF-8, `size` bytes and a zero behind */
  size_t size;       /* of the text, or how many items */
  char **names;      /* JSON_OBJECT */
  struct json **items;
} json;

json *json_read(const char *text, size_t size); /* NULL when it is not JSON */
void json_free(json *value);
const json *json_get(const json *object, const char *name); /* NULL when it is not there */
const char *json_text(const json *object, const char *name); /* NULL likewise */
int64_t json_whole(const json *object, const char *name, int64_t otherwise);
/* Canonical JSON, as TUF signs it. The caller frees it. NULL when there is a float in it. */
char *json_canonical(const json *value, size_t *size);

/* wire.c */
typedef enum { TOPIC_NONE, TOPIC_UP, TOPIC_DOWN, TOPIC_BROADCAST } topic_kind;

typedef struct {
  char device[21];
  char leaf[16];
  char sha256[65];
} topic_parts;

topic_kind topic_parse(const char *topic, topic_parts *parts);

typedef struct {
  uint32_t batch, index;
  uint8_t tag[8];
  const uint8_t *data;
  size_t size;
} chunk;

int chunk_read(const uint8_t *message, size_t size, chunk *found);
size_t chunk_count(uint64_t size);

typedef struct {
  uint32_t first, end;
} range;

size_t ranges_of(const uint32_t *indices, size_t count, range *ranges);
int need_is_good(const json *need);
int reply_is_good(const json *reply);
int bucket_of(double value);
void fingerprint_of(const uint8_t *spki, size_t size, char text[40]);
/* The text that is signed for a renewal; answers its length, and writes it where there is room. */
size_t renewal_text(const char *device, const char *signed_at, const char *csr, char *out,
                    size_t room);
int join_token_read(const char *token, char id[21], char secret[44], char ca_sha256[65],
                    char root_sha256[65]);
void hex_of(const uint8_t *data, size_t size, char *text);
int hex_read(const char *text, uint8_t *data, size_t size);
int is_digest(const char *text);

/* patch.c */
typedef struct {
  /* Takes a chunk and answers whether it fitted its leaf. */
  int (*take)(void *context, uint32_t index, const uint8_t *data, size_t size);
  void *context;
} patch_sink;

typedef enum { PATCH_GOOD, PATCH_DAMAGED, PATCH_NO_ZSTD } patch_end;

patch_end patch_apply(const uint8_t *patch, size_t patch_size, const uint8_t *base,
                      size_t base_size, patch_sink sink);

/* trust.c: with libcrypto only */
typedef enum { TRUST_GOOD, TRUST_REFUSED } trust_end;

/* Judges a case of desired.json; `cause` says why it is refused. */
trust_end trust_judge(const json *vectors, const json *given, const char **cause);
int ecdsa_is_by(const char *public_key_pem, const uint8_t *text, size_t size,
                const uint8_t *signature, size_t signature_size);

#endif
