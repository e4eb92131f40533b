"""Text that all programs in C++ share."""

import string

PROGRAM = string.Template("""#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

// So many neurons take all steps before the next ones.
constexpr int BLOCK = 128;

template <typename T>
inline T multiply_add(T x, T y, T z) {
#if defined(__FMA__) || defined(__aarch64__)
  return std::fma(x, y, z);
#else
  return x * y + z;
#endif
}

// Without a branch, which a compiler would not vectorise.
template <typename Bits, typename T>
inline T chosen(Bits is_first, T x, T y) {
  Bits one, other;
  std::memcpy(&one, &x, sizeof one);
  std::memcpy(&other, &y, sizeof other);
  one = (one & -is_first) | (other & (is_first - 1));
  std::memcpy(&x, &one, sizeof one);
  return x;
}

inline float choose(int32_t is_first, float x, float y) {
    return chosen<int32_t>(is_first, x, y);
}
inline double choose(int32_t is_first, double x, double y) {
    return chosen<int64_t>(is_first, x, y);
}

inline double exponential(double x) { return std::exp(x); }

inline float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// 2^n e^r with the polynomial of Cephes, which a compiler can vectorise.
inline float exponential(float x) {
  x = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = multiply_add(p, r, 1.3981999507e-3f);
  p = multiply_add(p, r, 8.3334519073e-3f);
  p = multiply_add(p, r, 4.1665795894e-2f);
  p = multiply_add(p, r, 1.6666665459e-1f);
  p = multiply_add(p, r, 5.0000001201e-1f);
  p = multiply_add(p, r * r, r) + 1.0f;
  const int32_t exponent = static_cast<int32_t>(n), half = exponent >> 1;
  return p * power_of_two(half) * power_of_two(exponent - half);
}

extern "C" void run(int64_t batch, int64_t features, int64_t steps,
                    const int64_t* ends, int64_t threads, const void* const* inputs,
                    const int64_t* strides, void* const* outputs) {
  const int64_t blocks = (features + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t index = 0; index < batch * blocks; ++index) {
    const int64_t b = index / blocks, f = index % blocks * BLOCK;
    const int n = features - f < BLOCK ? static_cast<int>(features - f) : BLOCK;
$pointers
$before
$loops
$end
  }
}
""")

LOOP = string.Template("""    {
$before
      for (int64_t $steps) {
$each_step
#pragma omp simd
        for (int j = 0; j < n; ++j) {
$body
        }
      }
    }""")

END = string.Template("""    {
$before
#pragma omp simd
      for (int j = 0; j < n; ++j) {
$body
      }
    }""")
