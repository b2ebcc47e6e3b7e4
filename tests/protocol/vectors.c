/* Runs the vectors: `client FOLDER`. One line for each file; ends with 1 if any case failed.
 * `client apply PATCH BASE OUT` writes what a patch makes of a file: OUT is as long as the target,
 * with zeros where no frame made a chunk. It ends with 0, with 3 if the patch is damaged, with 4
 * without libzstd. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int passed, failed, skipped;
} tally;

static void *bytes_of(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  char *data = malloc(*size + 1);
  if (data == NULL || fread(data, 1, *size, file) != *size) abort();
  data[*size] = 0;
  fclose(file);
  return data;
}

static json *vectors_of(const char *folder, const char *name) {
  char path[4096];
  size_t size;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  char *text = bytes_of(path, &size);
  json *found = text ? json_read(text, size) : NULL;
  free(text);
  if (found == NULL) fprintf(stderr, "%s is missing or no JSON\n", path), exit(2);
  return found;
}

static int same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

static int has(const json *list, size_t i, int64_t number) {
  return i < list->size && list->items[i]->whole && list->items[i]->integer == number;
}

static int run_topic(const json *given) {
  topic_parts parts;
  const char *kind = json_text(given, "kind");
  switch (topic_parse(json_text(given, "topic"), &parts)) {
    case TOPIC_NONE: return kind == NULL;
    case TOPIC_BROADCAST:
      return same(kind, "broadcast") && same(parts.sha256, json_text(given, "sha256"));
    case TOPIC_UP:
      if (!same(kind, "up")) return 0;
      break;
    case TOPIC_DOWN:
      if (!same(kind, "down")) return 0;
  }
  return same(parts.device, json_text(given, "device")) &&
         same(parts.leaf, json_text(given, "leaf"));
}

static int run_chunk(const json *given) {
  const char *head = json_text(given, "head");
  size_t head_size = strlen(head) / 2, count = (size_t)json_whole(given, "count", 0);
  uint8_t *message = malloc(head_size + count + 1), digest[DIGEST_BYTES];
  char tag[17], hex[65];
  chunk found;
  const json *wanted = json_get(given, "chunk");
  if (message == NULL || !hex_read(head, message, head_size)) abort();
  memset(message + head_size, (int)json_whole(given, "fill", 0), count);
  int good = chunk_read(message, head_size + count, &found);
  if (good && wanted) {
    sha256_of(found.data, found.size, digest);
    hex_of(digest, sizeof digest, hex);
    hex_of(found.tag, sizeof found.tag, tag);
    good = found.batch == (uint32_t)json_whole(wanted, "batch", -1) &&
           found.index == (uint32_t)json_whole(wanted, "index", -1) &&
           same(tag, json_text(wanted, "tag")) && same(hex, json_text(wanted, "data_sha256"));
    free(message);
    return good;
  }
  free(message);
  return good == (wanted != NULL);
}

static int run_leaves(const json *given) {
  size_t size = (size_t)json_whole(given, "size", 0), seed = (size_t)json_whole(given, "seed", 0);
  const json *leaves = json_get(given, "leaves");
  uint8_t *data = malloc(size), digest[DIGEST_BYTES];
  char hex[65];
  sha256 all;
  int good = leaves->size == chunk_count(size) &&
             json_whole(given, "chunks", -1) == (int64_t)leaves->size;
  if (data == NULL) abort();
  for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(7 * i + i / 251 + seed);
  sha256_begin(&all);
  for (size_t i = 0; good && i < leaves->size; i++) {
    size_t start = i * CHUNK_BYTES, left = size - start;
    sha256_of(data + start, left < CHUNK_BYTES ? left : CHUNK_BYTES, digest);
    sha256_add(&all, digest, sizeof digest);
    hex_of(digest, sizeof digest, hex);
    good = same(hex, leaves->items[i]->text);
  }
  sha256_end(&all, digest);
  hex_of(digest, sizeof digest, hex);
  good = good && same(hex, json_text(given, "leaves_sha256"));
  sha256_of(data, size, digest);
  hex_of(digest, sizeof digest, hex);
  free(data);
  return good && same(hex, json_text(given, "sha256"));
}

static int run_ranges(const json *given) {
  const json *indices = json_get(given, "indices"), *wanted = json_get(given, "ranges");
  uint32_t from[MAX_WINDOW];
  range to[MAX_WINDOW];
  for (size_t i = 0; i < indices->size; i++) from[i] = (uint32_t)indices->items[i]->integer;
  size_t found = ranges_of(from, indices->size, to);
  if (found != wanted->size) return 0;
  for (size_t i = 0; i < found; i++)
    if (!has(wanted->items[i], 0, to[i].first) || !has(wanted->items[i], 1, to[i].end)) return 0;
  return 1;
}

static int run_bucket(const json *given) {
  return bucket_of(json_get(given, "value")->number) == json_whole(given, "bucket", -1);
}

static int run_message(const json *given) {
  const char *type = json_text(given, "type"), *text = json_text(given, "json");
  json *message = json_read(text, strlen(text));
  int valid = json_get(given, "valid")->truth, good = message && message->kind == JSON_OBJECT;
  if (good && same(type, "Need")) good = need_is_good(message);
  else if (good && same(type, "Reply")) good = reply_is_good(message);
  else if (good && !valid) good = -1; /* the form of other types is checked where they are made */
  json_free(message);
  return good < 0 ? -1 : good == valid;
}

static int run_renewal(const json *given) {
  char text[2048], hex[65];
  uint8_t digest[DIGEST_BYTES], signature[128];
  size_t size = renewal_text(json_text(given, "device"), json_text(given, "signed_at"),
                             json_text(given, "csr_pem"), text, sizeof text);
  const char *signed_by = json_text(given, "signature");
  sha256_of(text, size, digest);
  hex_of(digest, sizeof digest, hex);
  if (!same(hex, json_text(given, "text_sha256"))) return 0;
  if (!hex_read(signed_by, signature, strlen(signed_by) / 2)) return 0;
#ifdef ARGOSY_LIBCRYPTO
  return ecdsa_is_by(json_text(given, "public_key_pem"), (uint8_t *)text, size, signature,
                     strlen(signed_by) / 2);
#else
  return 1;
#endif
}

static int run_text(const json *given) {
  char id[21], secret[44], ca[65], root[65], shown[40];
  uint8_t data[512], digest[DIGEST_BYTES];
  const char *token = json_text(given, "token"), *spki = json_text(given, "spki_der");
  if (token != NULL)
    return join_token_read(token, id, secret, ca, root) && same(id, json_text(given, "id")) &&
           same(secret, json_text(given, "secret")) && same(ca, json_text(given, "ca_sha256")) &&
           same(root, json_text(given, "root_sha256"));
  if (spki != NULL) {
    if (!hex_read(spki, data, strlen(spki) / 2)) return 0;
    fingerprint_of(data, strlen(spki) / 2, shown);
    return same(shown, json_text(given, "fingerprint"));
  }
  if (json_text(given, "signature") != NULL) return run_renewal(given);
  const char *csr = json_text(given, "csr_pem");
  sha256_of(csr, strlen(csr), digest);
  hex_of(digest, sizeof digest, ca);
  return same(ca, json_text(given, "csr_sha256"));
}

static const json *desired;

static int run_desired(const json *given) {
#ifdef ARGOSY_LIBCRYPTO
  const char *cause;
  int accepted = trust_judge(desired, given, &cause) == TRUST_GOOD;
  if (accepted != json_get(given, "accept")->truth) return 0;
  return accepted || same(cause, json_text(given, "cause"));
#else
  (void)given;
  return -1;
#endif
}

static const char *patches;

static void *part_of(const json *given, const char *name, size_t *size) {
  char path[4096];
  snprintf(path, sizeof path, "%s/patch/%s", patches, json_text(given, name));
  void *data = bytes_of(path, size);
  if (data == NULL) fprintf(stderr, "%s is missing\n", path), exit(2);
  return data;
}

/* The wanted file, and what a patch made of it, by chunks. */
typedef struct {
  const uint8_t *target;
  size_t size;
  uint32_t made[16], wrong[16];
  size_t many_made, many_wrong;
} seen;

/* As a device does: by the digest of the chunk. */
static int look(void *context, uint32_t index, const uint8_t *data, size_t size) {
  seen *to = context;
  uint8_t leaf[DIGEST_BYTES], digest[DIGEST_BYTES];
  size_t start = (size_t)index * CHUNK_BYTES, left = start < to->size ? to->size - start : 0;
  sha256_of(to->target + (left ? start : 0), left < CHUNK_BYTES ? left : CHUNK_BYTES, leaf);
  sha256_of(data, size, digest);
  int fits = memcmp(leaf, digest, sizeof leaf) == 0;
  if (to->many_made < 16) to->made[to->many_made++] = index;
  if (!fits && to->many_wrong < 16) to->wrong[to->many_wrong++] = index;
  return fits;
}

static int are(const uint32_t *found, size_t count, const json *wanted) {
  if (count != (wanted ? wanted->size : 0)) return 0;
  for (size_t i = 0; i < count; i++)
    if (!has(wanted, i, found[i])) return 0;
  return 1;
}

static int run_patch(const json *given) {
  size_t patch_size, base_size;
  seen to = {NULL, 0, {0}, {0}, 0, 0};
  uint8_t *patch = part_of(given, "patch", &patch_size);
  uint8_t *base = part_of(given, "base", &base_size);
  uint8_t *target = part_of(given, "target", &to.size);
  to.target = target;
  patch_end end = patch_apply(patch, patch_size, base, base_size, (patch_sink){look, &to});
  free(patch);
  free(base);
  free(target);
  if (end == PATCH_NO_ZSTD) return -1;
  if (json_text(given, "error") != NULL) return end == PATCH_DAMAGED;
  return end == PATCH_GOOD && are(to.made, to.many_made, json_get(given, "makes")) &&
         are(to.wrong, to.many_wrong, json_get(given, "wrong"));
}

/* Of each case: 1 passed, 0 failed, -1 skipped. */
typedef int (*runner)(const json *given);

static int run(const char *folder, const char *name, runner one) {
  json *vectors = vectors_of(folder, name);
  const json *cases = json_get(vectors, "cases");
  tally total = {0, 0, 0};
  desired = vectors;
  for (size_t i = 0; cases && i < cases->size; i++) {
    int end = one(cases->items[i]);
    if (end == 0) printf("%s: %s: FAILED\n", name, json_text(cases->items[i], "name"));
    total.passed += end > 0;
    total.failed += end == 0;
    total.skipped += end < 0;
  }
  printf("%s: %d passed, %d failed, %d skipped\n", name, total.passed, total.failed,
         total.skipped);
  json_free(vectors);
  return total.failed > 0 || total.passed + total.skipped == 0;
}

typedef struct {
  uint8_t *data;
  size_t size;
} made;

static int keep(void *context, uint32_t index, const uint8_t *data, size_t size) {
  made *to = context;
  size_t start = (size_t)index * CHUNK_BYTES;
  if (start + size > to->size) abort(); /* patch_apply was to see to that */
  memcpy(to->data + start, data, size);
  return 1;
}

static int apply(const char *patch_path, const char *base_path, const char *out_path) {
  size_t patch_size, base_size;
  uint8_t *patch = bytes_of(patch_path, &patch_size), *base = bytes_of(base_path, &base_size);
  made to = {NULL, 0};
  if (patch == NULL || base == NULL) return 2;
  for (size_t i = 16; patch_size >= 24 && i < 24; i++) to.size = to.size << 8 | patch[i];
  if (to.size > 1u << 29) return 3;
  to.data = calloc(to.size + 1, 1);
  if (to.data == NULL) abort();
  patch_end end = patch_apply(patch, patch_size, base, base_size, (patch_sink){keep, &to});
  FILE *out = fopen(out_path, "wb");
  if (out == NULL || fwrite(to.data, 1, to.size, out) != to.size || fclose(out) != 0) return 2;
  free(to.data);
  free(patch);
  free(base);
  return end == PATCH_GOOD ? 0 : end == PATCH_DAMAGED ? 3 : 4;
}

int main(int count, char **words) {
  if (count == 5 && strcmp(words[1], "apply") == 0) return apply(words[2], words[3], words[4]);
  if (count != 2) {
    fprintf(stderr, "usage: %s FOLDER | apply PATCH BASE OUT\n", words[0]);
    return 2;
  }
  static const struct {
    const char *name;
    runner one;
  } all[] = {{"topics.json", run_topic},     {"chunks.json", run_chunk},
             {"leaves.json", run_leaves},    {"ranges.json", run_ranges},
             {"histogram.json", run_bucket}, {"messages.json", run_message},
             {"texts.json", run_text},       {"desired.json", run_desired},
             {"patch/index.json", run_patch}};
  int failed = 0;
  patches = words[1];
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    failed |= run(words[1], all[i].name, all[i].one);
  return failed;
}
