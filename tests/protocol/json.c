/* A reader of JSON (RFC 8259), and a writer of canonical JSON. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

typedef struct {
  const char *at, *end;
  int depth;
} reader;

static json *value_of(reader *in);

static void blanks(reader *in) {
  while (in->at < in->end && strchr(" \t\r\n", *in->at) && *in->at) in->at++;
}

static int next_is(reader *in, char c) {
  blanks(in);
  if (in->at == in->end || *in->at != c) return 0;
  in->at++;
  return 1;
}

static int word(reader *in, const char *text) {
  size_t size = strlen(text);
  if ((size_t)(in->end - in->at) < size || memcmp(in->at, text, size) != 0) return 0;
  in->at += size;
  return 1;
}

static json *made(json_kind kind) {
  json *value = calloc(1, sizeof *value);
  if (value == NULL) abort();
  value->kind = kind;
  return value;
}

static int four_digits(reader *in, unsigned *code) {
  *code = 0;
  if (in->end - in->at < 4) return 0;
  for (int i = 0; i < 4; i++) {
    char c = *in->at++;
    unsigned digit;
    if (c >= '0' && c <= '9') digit = (unsigned)(c - '0');
    else if ((c | 32) >= 'a' && (c | 32) <= 'f') digit = (unsigned)((c | 32) - 'a') + 10;
    else return 0;
    *code = *code * 16 + digit;
  }
  return 1;
}

static char *utf8(char *out, unsigned code) {
  if (code < 0x80) {
    *out++ = (char)code;
  } else if (code < 0x800) {
    *out++ = (char)(0xc0 | code >> 6);
    *out++ = (char)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *out++ = (char)(0xe0 | code >> 12);
    *out++ = (char)(0x80 | (code >> 6 & 0x3f));
    *out++ = (char)(0x80 | (code & 0x3f));
  } else {
    *out++ = (char)(0xf0 | code >> 18);
    *out++ = (char)(0x80 | (code >> 12 & 0x3f));
    *out++ = (char)(0x80 | (code >> 6 & 0x3f));
    *out++ = (char)(0x80 | (code & 0x3f));
  }
  return out;
}

/* An escape behind its backslash; NULL when it is none, or half of a surrogate pair. */
static char *escaped(reader *in, char *out) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (in->at == in->end) return NULL;
  char c = *in->at++;
  const char *found = c ? strchr(from, c) : NULL;
  if (found) {
    *out++ = to[found - from];
    return out;
  }
  unsigned code, low;
  if (c != 'u' || !four_digits(in, &code) || (code >= 0xdc00 && code < 0xe000)) return NULL;
  if (code >= 0xd800 && code < 0xdc00) {
    if (!word(in, "\\u") || !four_digits(in, &low) || low < 0xdc00 || low >= 0xe000) return NULL;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  return utf8(out, code);
}

static char *text_of(reader *in, size_t *size) {
  if (!next_is(in, '"')) return NULL;
  char *text = malloc((size_t)(in->end - in->at) + 1), *out = text;
  if (text == NULL) abort();
  while (in->at < in->end && *in->at != '"' && (unsigned char)*in->at >= 0x20) {
    if (*in->at != '\\') {
      *out++ = *in->at++;
      continue;
    }
    in->at++;
    char *behind = escaped(in, out);
    if (behind == NULL) break;
    out = behind;
  }
  if (in->at == in->end || *in->at != '"') {
    free(text);
    return NULL;
  }
  in->at++;
  *out = 0;
  *size = (size_t)(out - text);
  return text;
}

static json *number_of(reader *in) {
  char copy[64];
  size_t size = 0;
  int is_float = 0;
  const char *at = in->at;
  if (at < in->end && *at == '-') at++;
  if (at == in->end || *at < '0' || *at > '9') return NULL;
  if (*at == '0' && at + 1 < in->end && at[1] >= '0' && at[1] <= '9') return NULL;
  while (at < in->end && size < sizeof copy && strchr("0123456789+-.eE", *at) && *at) {
    is_float |= strchr(".eE", *at) != NULL;
    at++;
  }
  size = (size_t)(at - in->at);
  if (size >= sizeof copy) return NULL;
  memcpy(copy, in->at, size);
  copy[size] = 0;
  char *behind;
  json *value = made(JSON_NUMBER);
  value->number = strtod(copy, &behind);
  if (*behind != 0) {
    json_free(value);
    return NULL;
  }
  if (!is_float) {
    errno = 0;
    value->integer = strtoll(copy, NULL, 10);
    value->whole = errno == 0;
  }
  in->at = at;
  return value;
}

static int put(json *into, char *name, json *item) {
  into->items = realloc(into->items, (into->size + 1) * sizeof *into->items);
  into->names = realloc(into->names, (into->size + 1) * sizeof *into->names);
  if (into->items == NULL || into->names == NULL) abort();
  into->names[into->size] = name;
  into->items[into->size++] = item;
  return item != NULL;
}

static json *many(reader *in, char closing) {
  json *value = made(closing == '}' ? JSON_OBJECT : JSON_LIST);
  if (next_is(in, closing)) return value;
  do {
    char *name = NULL;
    size_t size;
    if (closing == '}' && ((name = text_of(in, &size)) == NULL || !next_is(in, ':'))) {
      free(name);
      json_free(value);
      return NULL;
    }
    if (!put(value, name, value_of(in))) {
      json_free(value);
      return NULL;
    }
  } while (next_is(in, ','));
  if (next_is(in, closing)) return value;
  json_free(value);
  return NULL;
}

static json *value_of(reader *in) {
  json *value = NULL;
  blanks(in);
  if (in->at == in->end || ++in->depth > MAX_DEPTH) return NULL;
  switch (*in->at) {
    case '{': in->at++, value = many(in, '}'); break;
    case '[': in->at++, value = many(in, ']'); break;
    case '"': {
      size_t size;
      char *text = text_of(in, &size);
      if (text != NULL) {
        value = made(JSON_TEXT);
        value->text = text;
        value->size = size;
      }
      break;
    }
    case 't':
    case 'f': {
      int truth = *in->at == 't';
      if (word(in, truth ? "true" : "false")) value = made(JSON_BOOL), value->truth = truth;
      break;
    }
    case 'n': value = word(in, "null") ? made(JSON_NULL) : NULL; break;
    default: value = number_of(in);
  }
  in->depth--;
  return value;
}

json *json_read(const char *text, size_t size) {
  reader in = {text, text + size, 0};
  json *value = value_of(&in);
  blanks(&in);
  if (value != NULL && in.at == in.end) return value;
  json_free(value);
  return NULL;
}

void json_free(json *value) {
  if (value == NULL) return;
  if (value->kind == JSON_LIST || value->kind == JSON_OBJECT) {
    for (size_t i = 0; i < value->size; i++) {
      free(value->names[i]);
      json_free(value->items[i]);
    }
  }
  free(value->names);
  free(value->items);
  free(value->text);
  free(value);
}

const json *json_get(const json *object, const char *name) {
  if (object == NULL || object->kind != JSON_OBJECT) return NULL;
  for (size_t i = 0; i < object->size; i++)
    if (strcmp(object->names[i], name) == 0)
      return object->items[i]->kind == JSON_NULL ? NULL : object->items[i];
  return NULL;
}

const char *json_text(const json *object, const char *name) {
  const json *found = json_get(object, name);
  return found != NULL && found->kind == JSON_TEXT ? found->text : NULL;
}

int64_t json_whole(const json *object, const char *name, int64_t otherwise) {
  const json *found = json_get(object, name);
  return found != NULL && found->kind == JSON_NUMBER && found->whole ? found->integer : otherwise;
}

typedef struct {
  char *text;
  size_t size, room;
} writer;

static void add(writer *out, const char *text, size_t size) {
  if (out->size + size + 1 > out->room) {
    out->room = 2 * (out->size + size + 1);
    out->text = realloc(out->text, out->room);
    if (out->text == NULL) abort();
  }
  memcpy(out->text + out->size, text, size);
  out->size += size;
  out->text[out->size] = 0;
}

static void add_text(writer *out, const char *text) {
  add(out, "\"", 1);
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') add(out, "\\", 1);
    add(out, text, 1);
  }
  add(out, "\"", 1);
}

static int write_value(writer *out, const json *value);

static int write_object(writer *out, const json *value) {
  /* Selection by order of bytes: objects are small. */
  const char *last = NULL;
  add(out, "{", 1);
  for (size_t n = 0; n < value->size; n++) {
    size_t least = value->size;
    for (size_t i = 0; i < value->size; i++) {
      if (last != NULL && strcmp(value->names[i], last) <= 0) continue;
      if (least == value->size || strcmp(value->names[i], value->names[least]) < 0) least = i;
    }
    if (least == value->size) return 0; /* a name twice */
    last = value->names[least];
    if (n > 0) add(out, ",", 1);
    add_text(out, last);
    add(out, ":", 1);
    if (!write_value(out, value->items[least])) return 0;
  }
  add(out, "}", 1);
  return 1;
}

static int write_value(writer *out, const json *value) {
  char number[32];
  switch (value->kind) {
    case JSON_NULL: add(out, "null", 4); return 1;
    case JSON_BOOL: add(out, value->truth ? "true" : "false", value->truth ? 4 : 5); return 1;
    case JSON_TEXT: add_text(out, value->text); return 1;
    case JSON_OBJECT: return write_object(out, value);
    case JSON_NUMBER:
      if (!value->whole) return 0;
      add(out, number, (size_t)snprintf(number, sizeof number, "%lld", (long long)value->integer));
      return 1;
    case JSON_LIST:
      add(out, "[", 1);
      for (size_t i = 0; i < value->size; i++) {
        if (i > 0) add(out, ",", 1);
        if (!write_value(out, value->items[i])) return 0;
      }
      add(out, "]", 1);
      return 1;
  }
  return 0;
}

char *json_canonical(const json *value, size_t *size) {
  writer out = {NULL, 0, 0};
  if (!write_value(&out, value)) {
    free(out.text);
    return NULL;
  }
  *size = out.size;
  return out.text;
}
