// Numbers of 16 bits, one at a time. Conversions round to nearest, ties to even.
#ifndef KN_HALF_H
#define KN_HALF_H
#include <stdint.h>
#include <string.h>

static inline float from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline uint16_t to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return f != f ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static inline float from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff, u = mag << 13;
  float f;
  memcpy(&f, &u, 4);
  f *= 0x1p112f; // the exponents' biases differ by 112; right for subnormals too
  memcpy(&u, &f, 4);
  if (mag >= 0x7c00) u |= 0x7f800000;
  u |= sign;
  memcpy(&f, &u, 4);
  return f;
}

static inline uint16_t to_f16(float f) {
  uint32_t u, low;
  memcpy(&u, &f, 4);
  uint16_t sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return sign | 0x7e00;
  if (u >= 0x477ff000) return sign | 0x7c00; // rounds to 65536 or more
  if (u < 0x38800000) {                      // below 2^-14: adding 0.5 leaves units of 2^-24 in the low bits, rounded
    memcpy(&f, &u, 4);
    f += 0.5f;
    memcpy(&low, &f, 4);
    return sign | (low - 0x3f000000);
  }
  u += 0xfff + (u >> 13 & 1);
  return sign | (u - (112u << 23)) >> 13;
}
#endif
