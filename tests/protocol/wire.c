/* Topics, chunks, requests, replies, histogram buckets, and texts that are signed or shown. */
#include "client.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void hex_of(const uint8_t *data, size_t size, char *text) {
  for (size_t i = 0; i < size; i++) sprintf(text + 2 * i, "%02x", data[i]);
  text[2 * size] = 0;
}

int hex_read(const char *text, uint8_t *data, size_t size) {
  static const char digits[] = "0123456789abcdef";
  if (strlen(text) != 2 * size) return 0;
  for (size_t i = 0; i < 2 * size; i++) {
    const char *found = strchr(digits, text[i]);
    if (found == NULL) return 0;
    data[i / 2] = (uint8_t)(i % 2 ? data[i / 2] | (found - digits) : (found - digits) << 4);
  }
  return 1;
}

int is_digest(const char *text) {
  uint8_t digest[DIGEST_BYTES];
  return text != NULL && hex_read(text, digest, sizeof digest);
}

static int is_id(const char *text, size_t size, const char *kind) {
  size_t prefix = strlen(kind);
  if (size != prefix + 16 || memcmp(text, kind, prefix) != 0) return 0;
  for (size_t i = prefix; i < size; i++)
    if (text[i] == 0 || strchr("0123456789abcdefghjkmnpqrstvwxyz", text[i]) == NULL) return 0;
  return 1;
}

static int one_of(const char *text, const char *const *known) {
  for (; *known; known++)
    if (strcmp(text, *known) == 0) return 1;
  return 0;
}

topic_kind topic_parse(const char *topic, topic_parts *parts) {
  static const char *const up[] = {"birth", "death", "exec",  "tele", "sample", "time",
                                   "bench", "ask",   "need",  "meta", "renew",  NULL};
  static const char *const down[] = {"desired", "cmd",     "reply", "meta",
                                     "renew",   "renewed", "chunk", "time", NULL};
  memset(parts, 0, sizeof *parts);
  if (strncmp(topic, "m/", 2) == 0) {
    const char *end = strchr(topic + 2, '/');
    if (end == NULL || end - topic != 66 || strcmp(end, "/chunk") != 0) return TOPIC_NONE;
    memcpy(parts->sha256, topic + 2, 64);
    return is_digest(parts->sha256) ? TOPIC_BROADCAST : TOPIC_NONE;
  }
  if (strncmp(topic, "d/", 2) != 0) return TOPIC_NONE;
  const char *end = strchr(topic + 2, '/');
  if (end == NULL || !is_id(topic + 2, (size_t)(end - topic - 2), "dev_")) return TOPIC_NONE;
  int is_up = strncmp(end, "/up/", 4) == 0, is_down = strncmp(end, "/down/", 6) == 0;
  if (!is_up && !is_down) return TOPIC_NONE;
  const char *leaf = end + (is_up ? 4 : 6);
  if (!one_of(leaf, is_up ? up : down)) return TOPIC_NONE;
  memcpy(parts->device, topic + 2, 20);
  snprintf(parts->leaf, sizeof parts->leaf, "%s", leaf);
  return is_up ? TOPIC_UP : TOPIC_DOWN;
}

static uint32_t big32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

int chunk_read(const uint8_t *message, size_t size, chunk *found) {
  if (size <= CHUNK_HEAD_BYTES || size > CHUNK_HEAD_BYTES + CHUNK_BYTES) return 0;
  if (memcmp(message, "AC\x01", 3) != 0) return 0;
  found->batch = big32(message + 4);
  found->index = big32(message + 8);
  memcpy(found->tag, message + 12, sizeof found->tag);
  found->data = message + CHUNK_HEAD_BYTES;
  found->size = size - CHUNK_HEAD_BYTES;
  return 1;
}

size_t chunk_count(uint64_t size) { return (size_t)((size + CHUNK_BYTES - 1) / CHUNK_BYTES); }

size_t ranges_of(const uint32_t *indices, size_t count, range *ranges) {
  size_t found = 0;
  for (size_t i = 0; i < count; i++) {
    if (found > 0 && ranges[found - 1].end == indices[i]) {
      ranges[found - 1].end++;
    } else {
      ranges[found].first = indices[i];
      ranges[found++].end = indices[i] + 1;
    }
  }
  return found;
}

int need_is_good(const json *need) {
  const char *kind = json_text(need, "kind");
  const json *ranges = json_get(need, "ranges");
  int64_t batch = json_whole(need, "batch", json_get(need, "batch") ? -1 : 0), chunks = 0;
  if (kind == NULL || strcmp(kind, "chunks") != 0) return 0;
  if (!is_digest(json_text(need, "sha256")) || batch < 0 || batch > UINT32_MAX) return 0;
  if (ranges == NULL || ranges->kind != JSON_LIST) return 0;
  if (ranges->size == 0 || ranges->size > MAX_WINDOW) return 0;
  for (size_t i = 0; i < ranges->size; i++) {
    const json *one = ranges->items[i];
    if (one->kind != JSON_LIST || one->size != 2) return 0;
    const json *first = one->items[0], *end = one->items[1];
    if (first->kind != JSON_NUMBER || !first->whole || first->integer < 0) return 0;
    if (end->kind != JSON_NUMBER || !end->whole || end->integer <= first->integer) return 0;
    if (end->integer - first->integer > MAX_WINDOW) return 0;
    chunks += end->integer - first->integer;
  }
  return chunks <= MAX_WINDOW;
}

static int link_is_good(const json *offer) {
  const char *path = json_text(offer, "path");
  const json *left = json_get(offer, "expires_in");
  if (path == NULL || strncmp(path, "/v1/", 4) != 0 || strlen(path) < 5) return 0;
  if (left == NULL || left->kind != JSON_NUMBER || left->number <= 0) return 0;
  for (const char *at = path; *at; at++)
    if (*at < '!' || *at > '~') return 0;
  return 1;
}

static int broadcast_is_good(const json *offer) {
  const json *rate = json_get(offer, "rate"), *starts = json_get(offer, "starts_in");
  int64_t batch = json_whole(offer, "batch", -1);
  if (batch < 0 || batch > UINT32_MAX) return 0;
  if (starts == NULL || starts->kind != JSON_NUMBER || starts->number < 0) return 0;
  return rate != NULL && rate->kind == JSON_NUMBER && rate->number > 0;
}

int reply_is_good(const json *reply) {
  static const char *const kinds[] = {"manifest", "leaves", "chunks", "broadcast", NULL};
  const char *kind = json_text(reply, "kind");
  const json *link = json_get(reply, "https"), *broadcast = json_get(reply, "broadcast");
  if (kind == NULL || !one_of(kind, kinds) || !is_digest(json_text(reply, "sha256"))) return 0;
  if (link != NULL && !link_is_good(link)) return 0;
  return broadcast == NULL || broadcast_is_good(broadcast);
}

int bucket_of(double value) {
  if (value <= 1) return 0;
  double bucket = ceil(8 * log2(value) - 1e-9);
  return bucket > 256 ? 256 : (int)bucket;
}

void fingerprint_of(const uint8_t *spki, size_t size, char text[40]) {
  uint8_t digest[DIGEST_BYTES];
  sha256_of(spki, size, digest);
  sprintf(text, "%02x%02x-%02x%02x-%02x%02x-%02x%02x", digest[0], digest[1], digest[2], digest[3],
          digest[4], digest[5], digest[6], digest[7]);
}

size_t renewal_text(const char *device, const char *signed_at, const char *csr, char *out,
                    size_t room) {
  return (size_t)snprintf(out, room, "argosy-renew-1\n%s\n%s\n%s", device, signed_at, csr);
}

/* 43 characters of base64url without padding: 32 bytes. */
static int base64url_read(const char *text, uint8_t data[32]) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  uint32_t bits = 0;
  int held = 0, size = 0;
  for (int i = 0; i < 43; i++) {
    const char *found = text[i] ? strchr(digits, text[i]) : NULL;
    if (found == NULL) return 0;
    bits = bits << 6 | (uint32_t)(found - digits);
    held += 6;
    if (held >= 8 && size < 32) data[size++] = (uint8_t)(bits >> (held -= 8));
  }
  return size == 32;
}

int join_token_read(const char *token, char id[21], char secret[44], char ca_sha256[65],
                    char root_sha256[65]) {
  uint8_t ca[32], root[32], bytes[32];
  if (strlen(token) != 4 + 20 + 3 * 44 || strncmp(token, "aj1.", 4) != 0) return 0;
  const char *at = token + 4;
  if (!is_id(at, 20, "tok_") || at[20] != '.' || at[64] != '.' || at[108] != '.') return 0;
  if (!base64url_read(at + 21, bytes)) return 0;
  if (!base64url_read(at + 65, ca) || !base64url_read(at + 109, root)) return 0;
  memcpy(id, at, 20);
  id[20] = 0;
  memcpy(secret, at + 21, 43);
  secret[43] = 0;
  hex_of(ca, sizeof ca, ca_sha256);
  hex_of(root, sizeof root, root_sha256);
  return 1;
}
