/* Applies a patch. libzstd is loaded when it is there; its three functions are of its stable API. */
#include "client.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FRAMES 65536u
#define MAX_FRAME_CHUNKS 32u
#define MAX_SLICE_BYTES 4194304u
#define MIN_DICTIONARY_BYTES 8u
#define HEAD_BYTES 24u
#define WINDOW_LOG_MAX 100 /* ZSTD_d_windowLogMax */
#define MAX_WINDOW_LOG 23

typedef struct {
  void *(*create)(void);
  size_t (*dispose)(void *);
  size_t (*set)(void *, int, int);
  size_t (*prefix)(void *, const void *, size_t);
  size_t (*run)(void *, void *, size_t, const void *, size_t);
  unsigned (*is_error)(size_t);
  unsigned long long (*content)(const void *, size_t);
  size_t (*compressed)(const void *, size_t);
} zstd;

static int load(zstd *found) {
  void *library = dlopen("libzstd.so.1", RTLD_NOW);
  if (library == NULL) return 0;
  *(void **)&found->create = dlsym(library, "ZSTD_createDCtx");
  *(void **)&found->dispose = dlsym(library, "ZSTD_freeDCtx");
  *(void **)&found->set = dlsym(library, "ZSTD_DCtx_setParameter");
  *(void **)&found->prefix = dlsym(library, "ZSTD_DCtx_refPrefix");
  *(void **)&found->run = dlsym(library, "ZSTD_decompressDCtx");
  *(void **)&found->is_error = dlsym(library, "ZSTD_isError");
  *(void **)&found->content = dlsym(library, "ZSTD_getFrameContentSize");
  *(void **)&found->compressed = dlsym(library, "ZSTD_findFrameCompressedSize");
  return found->create && found->dispose && found->set && found->prefix && found->run &&
         found->is_error && found->content && found->compressed;
}

static uint64_t big(const uint8_t *at, int size) {
  uint64_t value = 0;
  for (int i = 0; i < size; i++) value = value << 8 | at[i];
  return value;
}

typedef struct {
  uint32_t first, chunks, width, lead, slice_bytes, data_bytes;
  uint64_t offset, length;
} frame;

/* Reads the head of a frame; 0 when it breaks a rule. */
static int head_of(const uint8_t *at, uint32_t after, uint64_t base_size, uint64_t target_size,
                   frame *out) {
  out->first = (uint32_t)big(at, 4);
  out->chunks = (uint32_t)big(at + 4, 2);
  out->width = at[6];
  out->lead = at[7];
  out->offset = big(at + 8, 8);
  out->slice_bytes = (uint32_t)big(at + 16, 4);
  out->data_bytes = (uint32_t)big(at + 20, 4);
  uint64_t end = (uint64_t)out->first + out->chunks, start = (uint64_t)out->first * CHUNK_BYTES;
  if (out->chunks == 0 || out->chunks > MAX_FRAME_CHUNKS || out->first < after) return 0;
  if (end > chunk_count(target_size)) return 0;
  if (out->width != 0 && out->width != 1 && out->width != 2 && out->width != 4) return 0;
  if (out->lead >= (out->width ? out->width : 1)) return 0;
  if (out->data_bytes == 0 || out->data_bytes >= out->chunks * CHUNK_BYTES) return 0;
  if (out->slice_bytes > MAX_SLICE_BYTES || out->offset > base_size) return 0;
  if (out->slice_bytes > base_size - out->offset) return 0;
  out->length = (end * CHUNK_BYTES < target_size ? end * CHUNK_BYTES : target_size) - start;
  if (out->width) return out->slice_bytes == out->length;
  return out->slice_bytes == 0 || out->slice_bytes >= MIN_DICTIONARY_BYTES;
}

static int unpack(const zstd *z, const frame *one, const uint8_t *data, const uint8_t *slice,
                  uint8_t *plain) {
  void *context = z->create();
  size_t got = 0;
  int good = context != NULL && z->content(data, one->data_bytes) == one->length &&
             z->compressed(data, one->data_bytes) == one->data_bytes &&
             !z->is_error(z->set(context, WINDOW_LOG_MAX, MAX_WINDOW_LOG));
  if (good && one->width == 0 && one->slice_bytes > 0)
    good = !z->is_error(z->prefix(context, slice, one->slice_bytes));
  if (good) got = z->run(context, plain, one->length, data, one->data_bytes);
  good = good && !z->is_error(got) && got == one->length;
  if (context != NULL) z->dispose(context);
  return good;
}

/* Adds differences, which come as byte planes, to the slice; the sums go to `made`. */
static void add(const frame *one, const uint8_t *plain, const uint8_t *slice, uint8_t *made) {
  size_t width = one->width, count = (one->length - one->lead) / width;
  size_t end = one->lead + count * width;
  for (size_t i = 0; i < one->length; i++) {
    if (i == one->lead) i = end;
    if (i < one->length) made[i] = (uint8_t)(plain[i] + slice[i]);
  }
  for (size_t i = 0; i < count; i++) {
    unsigned carry = 0;
    for (size_t byte = 0; byte < width; byte++) {
      size_t at = one->lead + i * width + byte;
      unsigned sum = plain[one->lead + byte * count + i] + slice[at] + carry;
      made[at] = (uint8_t)sum;
      carry = sum >> 8;
    }
  }
}

patch_end patch_apply(const uint8_t *patch, size_t patch_size, const uint8_t *base,
                      size_t base_size, patch_sink sink) {
  zstd z;
  if (!load(&z)) return PATCH_NO_ZSTD;
  if (patch_size < HEAD_BYTES || memcmp(patch, "AP\x01", 3) != 0) return PATCH_DAMAGED;
  uint64_t frames = big(patch + 4, 4), target_size = big(patch + 16, 8);
  if (frames > MAX_FRAMES || big(patch + 8, 8) != base_size) return PATCH_DAMAGED;
  const size_t most = (size_t)MAX_FRAME_CHUNKS * CHUNK_BYTES;
  uint8_t *plain = malloc(2 * most), *made = plain + most;
  size_t at = HEAD_BYTES;
  uint32_t after = 0;
  if (plain == NULL) abort();
  for (uint64_t number = 0; number < frames; number++) {
    frame one;
    if (patch_size - at < HEAD_BYTES) break;
    if (!head_of(patch + at, after, base_size, target_size, &one)) break;
    at += HEAD_BYTES;
    if (patch_size - at < one.data_bytes) break;
    const uint8_t *slice = base + one.offset, *result = plain;
    if (!unpack(&z, &one, patch + at, slice, plain)) break;
    at += one.data_bytes;
    after = one.first + one.chunks;
    if (one.width) add(&one, plain, slice, made), result = made;
    for (uint32_t i = 0; i < one.chunks; i++) {
      size_t start = (size_t)i * CHUNK_BYTES, left = one.length - start;
      sink.take(sink.context, one.first + i, result + start,
                left < CHUNK_BYTES ? left : CHUNK_BYTES);
    }
    if (number + 1 == frames && at == patch_size) {
      free(plain);
      return PATCH_GOOD;
    }
  }
  free(plain);
  return frames == 0 && patch_size == HEAD_BYTES ? PATCH_GOOD : PATCH_DAMAGED;
}
