// The functions that crate ffi/rust adds to daulet/tokenizers' C ABI. Text and ids are counted, so
// they may hold zero bytes. Functions that return bool fill *out when true, *error when false; both
// are freed with the function named after their type.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	uint8_t *ptr;
	size_t len;
} pagoda_bytes;

typedef struct {
	uint32_t *ids;     // len entries
	uint32_t *offsets; // 2*len byte offsets (start, end), or NULL when not asked for
	size_t len;
} pagoda_ids;

void pagoda_bytes_free(pagoda_bytes bytes);
void pagoda_ids_free(pagoda_ids ids);

bool pagoda_tok_encode(const void *tok, const uint8_t *text, size_t len, bool add_special, bool offsets,
	pagoda_ids *out, pagoda_bytes *error);
bool pagoda_tok_decode(const void *tok, const uint32_t *ids, size_t len, bool skip_special,
	pagoda_bytes *out, pagoda_bytes *error);
int64_t pagoda_tok_id(const void *tok, const uint8_t *text, size_t len); // -1: no such token
bool pagoda_tok_info(const void *tok, pagoda_bytes *out, pagoda_bytes *error);
bool pagoda_tok_table(const void *tok, pagoda_bytes *out, pagoda_bytes *error);
