/* Steps 2 to 7 of what a device checks before it believes a desired document, with libcrypto. */
#include "client.h"

#ifdef ARGOSY_LIBCRYPTO

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int ed25519_is_by(const uint8_t key[32], const char *text, size_t size,
                         const uint8_t signature[64]) {
  EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key, 32);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int good = pkey && context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, pkey) == 1 &&
             EVP_DigestVerify(context, signature, 64, (const uint8_t *)text, size) == 1;
  EVP_MD_CTX_free(context);
  EVP_PKEY_free(pkey);
  return good;
}

int ecdsa_is_by(const char *public_key_pem, const uint8_t *text, size_t size,
                const uint8_t *signature, size_t signature_size) {
  BIO *bio = BIO_new_mem_buf(public_key_pem, -1);
  EVP_PKEY *pkey = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int good = pkey && context && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, pkey) == 1 &&
             EVP_DigestVerify(context, signature, signature_size, text, size) == 1;
  EVP_MD_CTX_free(context);
  EVP_PKEY_free(pkey);
  BIO_free(bio);
  return good;
}

typedef struct {
  const json *files;
  const char *now; /* ISO 8601 in UTC: its first 19 characters sort as time does */
  const char *cause;
} walk;

static json *refuse(walk *w, const char *cause) {
  if (w->cause == NULL) w->cause = cause;
  return NULL;
}

static int has_ended(const walk *w, const json *signed_part) {
  const char *expires = json_text(signed_part, "expires");
  return expires == NULL || strncmp(w->now, expires, 19) >= 0;
}

/* Whether enough different keys of a role have signed. */
static int is_signed(const json *document, const json *keys, const json *role) {
  const json *ids = json_get(role, "keyids"), *signatures = json_get(document, "signatures");
  size_t size;
  int64_t good = 0, threshold = json_whole(role, "threshold", 1);
  const json *part = json_get(document, "signed");
  char *text = part ? json_canonical(part, &size) : NULL;
  if (ids == NULL || signatures == NULL || text == NULL) return free(text), 0;
  for (size_t i = 0; i < ids->size && ids->items[i]->kind == JSON_TEXT; i++) {
    const char *id = ids->items[i]->text;
    const char *public = json_text(json_get(json_get(keys, id), "keyval"), "public");
    uint8_t key[32], signature[64];
    if (public == NULL || !hex_read(public, key, sizeof key)) continue;
    for (size_t j = 0; j < signatures->size; j++) {
      const char *by = json_text(signatures->items[j], "keyid");
      const char *sig = json_text(signatures->items[j], "sig");
      if (by == NULL || sig == NULL || strcmp(by, id) != 0) continue;
      if (!hex_read(sig, signature, sizeof signature)) continue;
      good += ed25519_is_by(key, text, size, signature);
      break;
    }
  }
  free(text);
  return threshold >= 1 && good >= threshold;
}

/* Reads a document of a type that a role signed and that has not ended. */
static json *checked(walk *w, const char *text, const char *type, const json *keys,
                     const json *role) {
  json *document = text ? json_read(text, strlen(text)) : NULL;
  const char *is = json_text(json_get(document, "signed"), "_type");
  const char *cause = NULL;
  if (is == NULL || strcmp(is, type) != 0) cause = "bad_signature";
  else if (!is_signed(document, keys, role)) cause = "bad_signature";
  else if (has_ended(w, json_get(document, "signed"))) cause = "expired";
  if (cause == NULL) return document;
  json_free(document);
  return refuse(w, cause);
}

/* The file of a role as the snapshot, or the timestamp, names it. */
static json *listed(walk *w, const json *meta, const char *role_name, const char *type,
                    const json *keys, const json *role) {
  char file[128];
  snprintf(file, sizeof file, "%s.json", role_name);
  const json *said = json_get(meta, file);
  int64_t version = json_whole(said, "version", -1);
  snprintf(file, sizeof file, "%lld.%s.json", (long long)version, role_name);
  const char *text = json_text(w->files, file);
  const char *sha256 = json_text(json_get(said, "hashes"), "sha256");
  if (text != NULL && sha256 != NULL) {
    uint8_t digest[DIGEST_BYTES];
    char hex[65];
    sha256_of(text, strlen(text), digest);
    hex_of(digest, sizeof digest, hex);
    if (strcmp(hex, sha256) != 0) return refuse(w, "digest_mismatch");
  }
  json *document = checked(w, text, type, keys, role);
  if (document && json_whole(json_get(document, "signed"), "version", -2) != version) {
    json_free(document);
    return refuse(w, "below_floor");
  }
  return document;
}

static const json *delegation(const json *targets, const char *name) {
  const json *roles = json_get(json_get(json_get(targets, "signed"), "delegations"), "roles");
  for (size_t i = 0; roles && i < roles->size; i++) {
    const char *is = json_text(roles->items[i], "name");
    if (is && strcmp(is, name) == 0) return roles->items[i];
  }
  return NULL;
}

static const json *keys_of(const json *targets) {
  return json_get(json_get(json_get(targets, "signed"), "delegations"), "keys");
}

/* Steps 4 to 6; the target goes to `target`. */
static const char *fault(const json *document, const json *given, const json **target,
                         const json **wanted) {
  const json *targets = json_get(json_get(document, "signed"), "targets");
  const char *device = json_text(given, "device");
  char prefix[64], path[128];
  if (targets == NULL || targets->size != 1) return "bad_signature";
  if (json_get(json_get(document, "signed"), "delegations")) return "bad_signature";
  *target = targets->items[0];
  *wanted = json_get(*target, "custom");
  const char *for_device = json_text(*wanted, "device");
  const char *execution = json_text(*wanted, "execution");
  const char *class = json_text(*wanted, "device_class");
  const char *manifest = json_text(*wanted, "manifest_sha256");
  if (!for_device || !execution || !class || !is_digest(manifest)) return "bad_signature";
  snprintf(prefix, sizeof prefix, "device/%s/", device);
  if (strcmp(for_device, device) || strncmp(targets->names[0], prefix, strlen(prefix)))
    return "wrong_device";
  snprintf(path, sizeof path, "device/%s/%s", device, execution);
  if (strcmp(targets->names[0], path) != 0) return "bad_signature";
  int64_t sequence = json_whole(json_get(document, "signed"), "version", -1);
  if (sequence < json_whole(given, "floor", 0)) return "below_floor";
  if (strcmp(class, json_text(given, "device_class")) != 0) return "wrong_class";
  const char *sha256 = json_text(json_get(*target, "hashes"), "sha256");
  int64_t length = json_whole(*target, "length", -1);
  if (sha256 == NULL || strcmp(sha256, manifest) || length < 1 || length > 524288)
    return "digest_mismatch";
  return NULL;
}

/* Step 7: what the model's role says of the manifest. */
static void confirm(walk *w, const json *meta, const json *targets, const json *target,
                    const json *wanted) {
  char name[80], path[128];
  const char *model = json_text(wanted, "model");
  snprintf(name, sizeof name, "model-%s", model ? model : "");
  snprintf(path, sizeof path, "models/%s/%lld/manifest.json", model ? model : "",
           (long long)json_whole(wanted, "version", -1));
  json *models = listed(w, meta, "models", "targets", keys_of(targets),
                        delegation(targets, "models"));
  json *role = models ? listed(w, meta, name, "targets", keys_of(models), delegation(models, name))
                      : NULL;
  const json *said = json_get(json_get(json_get(role, "signed"), "targets"), path);
  const char *a = json_text(json_get(said, "hashes"), "sha256");
  const char *b = json_text(json_get(target, "hashes"), "sha256");
  if (said == NULL || a == NULL) refuse(w, "bad_signature");
  else if (strcmp(a, b) || json_whole(said, "length", -1) != json_whole(target, "length", -2))
    refuse(w, "digest_mismatch");
  json_free(role);
  json_free(models);
}

/* Steps 3 to 7, over a targets document that is believed. */
static void judge(walk *w, const json *given, const json *meta, const json *targets) {
  const json *target, *wanted;
  const char *text = json_text(given, "document");
  if (text == NULL || strlen(text) > 65536) {
    refuse(w, "bad_signature");
    return;
  }
  json *document = checked(w, text, "targets", keys_of(targets), delegation(targets, "director"));
  if (document == NULL) return;
  const char *cause = fault(document, given, &target, &wanted);
  if (cause) refuse(w, cause);
  else confirm(w, meta, targets, target, wanted);
  json_free(document);
}

/* The newest root: each is signed by the keys of the one before and by its own (TUF 5.3). */
static json *newest_root(walk *w, const char *pinned) {
  json *root = pinned ? json_read(pinned, strlen(pinned)) : NULL;
  for (int64_t version = 1; root != NULL; version++) {
    const json *part = json_get(root, "signed");
    const json *role = json_get(json_get(part, "roles"), "root");
    char name[40];
    if (!is_signed(root, json_get(part, "keys"), role)) break;
    snprintf(name, sizeof name, "%lld.root.json", (long long)version + 1);
    const char *text = json_text(w->files, name);
    if (text == NULL) {
      if (!has_ended(w, part)) return root;
      json_free(root);
      return refuse(w, "expired");
    }
    json *next = json_read(text, strlen(text));
    int good = next && is_signed(next, json_get(part, "keys"), role) &&
               json_whole(json_get(next, "signed"), "version", -1) == version + 1;
    json_free(root);
    root = next;
    if (!good) break;
  }
  json_free(root);
  return refuse(w, "bad_signature");
}

trust_end trust_judge(const json *vectors, const json *given, const char **cause) {
  walk w = {json_get(vectors, "files"), json_text(given, "now"), NULL};
  json *timestamp = NULL, *snapshot = NULL, *targets = NULL;
  json *root = newest_root(&w, json_text(w.files, json_text(vectors, "pinned_root")));
  const json *keys = json_get(json_get(root, "signed"), "keys");
  const json *roles = json_get(json_get(root, "signed"), "roles");
  if (root)
    timestamp = checked(&w, json_text(w.files, "timestamp.json"), "timestamp", keys,
                        json_get(roles, "timestamp"));
  if (timestamp)
    snapshot = listed(&w, json_get(json_get(timestamp, "signed"), "meta"), "snapshot", "snapshot",
                      keys, json_get(roles, "snapshot"));
  const json *meta = json_get(json_get(snapshot, "signed"), "meta");
  if (snapshot) targets = listed(&w, meta, "targets", "targets", keys, json_get(roles, "targets"));
  if (targets) judge(&w, given, meta, targets);
  json_free(targets);
  json_free(snapshot);
  json_free(timestamp);
  json_free(root);
  *cause = w.cause;
  return w.cause == NULL ? TRUST_GOOD : TRUST_REFUSED;
}

#endif
