/* What sampling does between matrix products, one pass over memory each. Plain C; built twice, with and without BF16.

   Arrays are row-major. Where rows of an input lie further apart than they are long, its stride is given, in elements.
   Sums are in float32, whatever the type of the elements. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef BF16
typedef uint16_t element;

static inline float get(element x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline element put(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return x == x ? (element)rounded : (element)0x7FC0;
}
#else
typedef float element;
static inline float get(element x) { return x; }
static inline element put(float x) { return x; }
#endif

/* Elements of an array, from which on a second thread pays for waking it. */
#define WORTH_THREADS 65536

/* Within 2 units in the last place for x <= 0; 0 below -87; NaN for NaN. A form that compilers turn into vectors. */
static inline float exp_of(float x) {
    float clamped = x < -87.0f ? -87.0f : x;
    float n = rintf(clamped * 1.44269504088896341f);
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    float result = p * power;
    return x < -87.0f ? 0.0f : result;
}

/* out = x / rms(x) * weight, over rows of `size`. */
void rms_norm(element *out, const element *x, int64_t stride, const element *weight, int64_t rows, int64_t size,
              float eps) {
#pragma omp parallel for if (rows * size > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const element *from = x + row * stride;
        element *to = out + row * size;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < size; i++) sum += get(from[i]) * get(from[i]);
        float scale = 1.0f / sqrtf(sum / (float)size + eps);
        for (int64_t i = 0; i < size; i++) to[i] = put(get(put(get(from[i]) * scale)) * get(weight[i]));
    }
}

/* out = silu(gate) * up, for rows that hold `size` gates and then as many ups. */
void swiglu(element *out, const element *gate_up, int64_t rows, int64_t size) {
#pragma omp parallel for if (rows * size > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const element *gate = gate_up + row * 2 * size, *up = gate + size;
        for (int64_t i = 0; i < size; i++) {
            float x = get(gate[i]);
            /* exp of minus the magnitude never overflows */
            float small = exp_of(-fabsf(x));
            float sigmoid = (x < 0 ? small : 1.0f) / (1.0f + small);
            out[row * size + i] = put(get(put(x * sigmoid)) * get(up[i]));
        }
    }
}

/* The first `heads` of each row's heads, normalised if there are weights, turned by their positions:
   x * cos + swap_halves(x) * sin, with cos and sin of shape [rows, size]. */
void rotate(element *out, const element *x, int64_t stride, const element *weights, float eps, const element *cosines,
            const element *sines, int64_t rows, int64_t heads, int64_t size) {
    int64_t half = size / 2;
    float *normed = malloc((size_t)size * sizeof(float));
    for (int64_t row = 0; row < rows; row++) {
        const element *cosine = cosines + row * size, *sine = sines + row * size;
        for (int64_t head = 0; head < heads; head++) {
            const element *from = x + row * stride + head * size;
            element *to = out + (row * heads + head) * size;
            if (weights) {
                const element *weight = weights + head * size;
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < size; i++) sum += get(from[i]) * get(from[i]);
                float scale = 1.0f / sqrtf(sum / (float)size + eps);
                for (int64_t i = 0; i < size; i++) normed[i] = get(put(get(put(get(from[i]) * scale)) * get(weight[i])));
            } else {
                for (int64_t i = 0; i < size; i++) normed[i] = get(from[i]);
            }
            for (int64_t i = 0; i < half; i++) {
                float first = normed[i], second = normed[i + half];
                to[i] = put(first * get(cosine[i]) + second * get(sine[i]));
                to[i + half] = put(second * get(cosine[i + half]) + first * get(sine[i + half]));
            }
        }
    }
    free(normed);
}

/* Write new keys or values, `heads` of each row, into a cache of shape [slots, heads, length, size]. */
void store(element *cache, const element *x, int64_t stride, const int64_t *slots, const int64_t *positions,
           int64_t rows, int64_t heads, int64_t length, int64_t size) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++)
            memcpy(cache + ((slots[row] * heads + head) * length + positions[row]) * size,
                   x + row * stride + head * size, (size_t)size * sizeof(element));
}

/* Attention of one row's query heads that share a key head, over the positions [first, last]. */
static inline void attend_group(element *out, const element *queries, const element *keys, const element *values,
                                int64_t first, int64_t last, int64_t group, float scale, float *restrict query,
                                float *restrict sum, float *restrict scores, const int64_t size) {
    int64_t count = last - first + 1;
    for (int64_t i = 0; i < group * size; i++) query[i] = get(queries[i]) * scale, sum[i] = 0;
    for (int64_t place = 0; place < count; place++) {
        const element *key = keys + (first + place) * size;
        for (int64_t q = 0; q < group; q++) {
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < size; i++) dot += query[q * size + i] * get(key[i]);
            scores[q * count + place] = dot;
        }
    }
    for (int64_t q = 0; q < group; q++) {
        float *score = scores + q * count, most = score[0], total = 0;
#pragma omp simd reduction(max : most)
        for (int64_t place = 1; place < count; place++) most = score[place] > most ? score[place] : most;
        for (int64_t place = 0; place < count; place++) score[place] = exp_of(score[place] - most);
#pragma omp simd reduction(+ : total)
        for (int64_t place = 0; place < count; place++) total += score[place];
        for (int64_t place = 0; place < count; place++) score[place] /= total;
    }
    for (int64_t place = 0; place < count; place++) {
        const element *value = values + (first + place) * size;
        for (int64_t q = 0; q < group; q++)
            for (int64_t i = 0; i < size; i++) sum[q * size + i] += scores[q * count + place] * get(value[i]);
    }
    for (int64_t i = 0; i < group * size; i++) out[i] = put(sum[i]);
}

/* Each row's queries over its slot of the caches, from its position back to the first, or `window` positions.
   Sizes of heads that are common are constants to the compiler. */
void attend(element *out, const element *queries, int64_t stride, const element *keys, const element *values,
            const int64_t *slots, const int64_t *positions, int64_t rows, int64_t query_heads, int64_t key_heads,
            int64_t length, int64_t size, int64_t window, float scale) {
    int64_t group = query_heads / key_heads, longest = 0, all = 0;
    for (int64_t row = 0; row < rows; row++) {
        longest = positions[row] >= longest ? positions[row] + 1 : longest;
        all += positions[row] + 1;
    }
#pragma omp parallel if (rows * key_heads > 1 && all * query_heads * size > WORTH_THREADS)
    {
        float *query = malloc((size_t)(group * (2 * size + longest)) * sizeof(float));
        float *sum = query + group * size, *scores = sum + group * size;
#pragma omp for schedule(dynamic, 4)
        for (int64_t item = 0; item < rows * key_heads; item++) {
            int64_t row = item / key_heads, head = item % key_heads;
            int64_t last = positions[row], first = window && last >= window ? last - window + 1 : 0;
            int64_t start = (slots[row] * key_heads + head) * length * size;
            const element *from = queries + row * stride + head * group * size;
            element *to = out + (row * query_heads + head * group) * size;
#define ATTEND(SIZE) attend_group(to, from, keys + start, values + start, first, last, group, scale, query, sum, scores, SIZE)
            if (size == 64) ATTEND(64);
            else if (size == 128) ATTEND(128);
            else if (size == 32) ATTEND(32);
            else ATTEND(size);
#undef ATTEND
        }
        free(query);
    }
}

/* The output head, out = x * weight', of a few rows: each row of the weight is read once, in its own type, which takes
   half the time of reading a float32 copy of it. Nothing is rounded: x and out are float32. */
void logits(float *out, const float *x, const element *weight, int64_t rows, int64_t outputs, int64_t size) {
#pragma omp parallel for if (outputs * size > WORTH_THREADS)
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t row = 0; row < rows; row++) {
            const float *from = x + row * size;
            const element *with = weight + o * size;
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < size; i++) dot += from[i] * get(with[i]);
            out[row * outputs + o] = dot;
        }
}

#define BLOCK 256

/* One token a row by inverse CDF, and its log-probability, at the row's temperature; the most probable one, with its
   log-probability at temperature 1, where that is 0. Logits are overwritten. */
void draw(int64_t *tokens, float *logprobs, float *logits, const float *temperatures, const float *uniforms,
          int64_t rows, int64_t size) {
    int64_t blocks = (size + BLOCK - 1) / BLOCK;
    float *all_sums = malloc((size_t)(rows * blocks) * sizeof(float));
#pragma omp parallel for if (rows > 1 && rows * size > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        float *x = logits + row * size, most = x[0], inverse = temperatures[row] > 0 ? 1.0f / temperatures[row] : 1.0f;
        float *sums = all_sums + row * blocks;
#pragma omp simd reduction(max : most)
        for (int64_t i = 1; i < size; i++) most = x[i] > most ? x[i] : most;
        int64_t token = 0;
        if (temperatures[row] <= 0)
            while (token < size - 1 && x[token] != most) token++;
        float logit = x[token];
        float total = 0;
        for (int64_t block = 0; block < blocks; block++) {
            int64_t end = (block + 1) * BLOCK < size ? (block + 1) * BLOCK : size;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = block * BLOCK; i < end; i++) x[i] = exp_of((x[i] - most) * inverse), sum += x[i];
            sums[block] = sum;
            total += sum;
        }
        if (temperatures[row] > 0) {
            /* the last token with a probability takes what rounding leaves over */
            float left = uniforms[row] * total;
            int64_t block = 0;
            while (block < blocks - 1 && left >= sums[block]) left -= sums[block++];
            token = -1;
            int64_t end = (block + 1) * BLOCK < size ? (block + 1) * BLOCK : size;
            for (int64_t i = block * BLOCK; i < end; i++) {
                if (!(x[i] > 0)) continue;
                token = i;
                if (left < x[i]) break;
                left -= x[i];
            }
            for (int64_t i = block * BLOCK - 1; token < 0 && i >= 0; i--)
                if (x[i] > 0) token = i;
            if (token < 0) token = 0;
            logprobs[row] = logf(x[token] / total);
        } else {
            logprobs[row] = logit - most - logf(total);
        }
        tokens[row] = token;
        if (!(total > 0)) logprobs[row] = NAN;
    }
    free(all_sums);
}
