// Mutual nearest neighbours of descriptors of length 1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "map.hpp"

namespace dpqed {

struct Match {
  std::size_t query, row;
  float similarity;  // cosine
};

// Rows of int8: descriptor i is scales[i] times row i.
struct Int8Rows {
  std::size_t rows = 0, dim = 0;
  std::vector<std::int8_t> values;
  std::vector<float> scales;
};

inline Int8Rows to_int8(const float* rows, std::size_t n, std::size_t dim) {
  Int8Rows out{n, dim, std::vector<std::int8_t>(n * dim), std::vector<float>(n)};
  for (std::size_t i = 0; i < n; ++i) {
    out.scales[i] = to_int8(rows + i * dim, dim, out.values.data() + i * dim);
  }
  return out;
}

// Pairs of rows that are each other's nearest; the lowest row wins a tie. T: of the rows, Sum: of
// their products; similarity(q, r, sum) is the cosine.
template <class Sum, class T, class Similarity>
std::vector<Match> mutual_nearest_rows(const T* query, std::size_t n, const T* database,
                                       std::size_t m, std::size_t dim, Similarity similarity) {
  constexpr std::size_t kRows = 4, kLanes = 16;
  std::vector<float> best_of_query(n, -2.0f), best_of_row(m, -2.0f);
  std::vector<std::size_t> row_of_query(n, m), query_of_row(m, n);
  const auto offer = [&](std::size_t q, std::size_t r, float cosine) {
    if (cosine > best_of_query[q]) best_of_query[q] = cosine, row_of_query[q] = r;
    if (cosine > best_of_row[r]) best_of_row[r] = cosine, query_of_row[r] = q;
  };
  for (std::size_t q = 0; q < n; ++q) {
    const T* const a = query + q * dim;
    for (std::size_t next = 0; next < m; next += kRows) {
      // Rows that were compared already at the end: the same arithmetic for each, so that equal
      // rows tie. Several sums at a time hide the latency of adding.
      const std::size_t r = m < kRows ? next : std::min(next, m - kRows);
      const std::size_t count = std::min(kRows, m);
      const T* rows[kRows];
      for (std::size_t j = 0; j < kRows; ++j) rows[j] = database + (r + std::min(j, count - 1)) * dim;
      Sum sums[kRows][kLanes] = {};
      std::size_t k = 0;
      for (; k + kLanes <= dim; k += kLanes) {
        for (std::size_t j = 0; j < kRows; ++j) {
          for (std::size_t i = 0; i < kLanes; ++i) {
            sums[j][i] += static_cast<Sum>(a[k + i]) * rows[j][k + i];
          }
        }
      }
      for (std::size_t j = 0; j < count; ++j) {
        Sum total = 0;
        for (std::size_t i = 0; i < kLanes; ++i) total += sums[j][i];
        for (std::size_t i = k; i < dim; ++i) total += static_cast<Sum>(a[i]) * rows[j][i];
        offer(q, r + j, similarity(q, r + j, total));
      }
    }
  }
  std::vector<Match> matches;
  for (std::size_t q = 0; q < n; ++q) {
    if (row_of_query[q] < m && query_of_row[row_of_query[q]] == q) {
      matches.push_back({q, row_of_query[q], best_of_query[q]});
    }
  }
  return matches;
}

// query: (n, dim), database: (m, dim), in C order.
inline std::vector<Match> mutual_nearest(const float* query, std::size_t n, const float* database,
                                         std::size_t m, std::size_t dim) {
  return mutual_nearest_rows<float>(query, n, database, m, dim,
                                    [](std::size_t, std::size_t, float sum) { return sum; });
}

inline std::vector<Match> mutual_nearest(const Int8Rows& query, const Int8Rows& database) {
  check(query.dim == database.dim, "descriptors of different dimensions");
  return mutual_nearest_rows<std::int32_t>(
      query.values.data(), query.rows, database.values.data(), database.rows, query.dim,
      [&](std::size_t q, std::size_t r, std::int32_t sum) {
        return query.scales[q] * database.scales[r] * static_cast<float>(sum);
      });
}

// Codes of the points that an image of the map sees, in their order.
inline std::vector<std::uint8_t> image_codes(const Map& map, std::size_t image) {
  const std::size_t size = map.local.codec->code_size, count = map.num_seen(image);
  std::vector<std::uint8_t> codes;
  codes.reserve(count * size);
  for (std::size_t k = 0; k < count; ++k) {
    const auto code = map.local.codes.begin() +
                      static_cast<std::ptrdiff_t>(map.code_row(image, k) * size);
    codes.insert(codes.end(), code, code + static_cast<std::ptrdiff_t>(size));
  }
  return codes;
}

// Descriptors of the points that an image of the map sees, in their order.
inline std::vector<float> image_descriptors(const Map& map, std::size_t image) {
  const std::vector<std::uint8_t> codes = image_codes(map, image);
  std::vector<float> out(map.num_seen(image) * map.local.codec->dim);
  map.local.codec->decode(codes.data(), map.num_seen(image), out.data());
  return out;
}

inline Int8Rows image_descriptors_int8(const Map& map, std::size_t image) {
  const std::size_t count = map.num_seen(image), dim = map.local.codec->dim;
  const std::vector<std::uint8_t> codes = image_codes(map, image);
  Int8Rows out{count, dim, std::vector<std::int8_t>(count * dim), std::vector<float>(count)};
  map.local.codec->decode_int8(codes.data(), count, out.values.data(), out.scales.data());
  return out;
}

// Rows of an image's points to rows of the map's.
inline void to_map_rows(const Map& map, std::size_t image, std::vector<Match>& matches) {
  for (Match& match : matches) {
    match.row = static_cast<std::size_t>(
        map.indices[static_cast<std::size_t>(map.indptr[image]) + match.row]);
  }
}

// Mutual nearest neighbours of a query with an image of the map; rows are those of the map's points.
inline std::vector<Match> match_image(const Map& map, std::size_t image, const float* query,
                                      std::size_t n) {
  const std::vector<float> seen = image_descriptors(map, image);
  std::vector<Match> matches =
      mutual_nearest(query, n, seen.data(), map.num_seen(image), map.local.codec->dim);
  to_map_rows(map, image, matches);
  return matches;
}

// The same on int8: a quarter of the memory, and all but close calls are the same matches.
inline std::vector<Match> match_image(const Map& map, std::size_t image, const Int8Rows& query) {
  std::vector<Match> matches = mutual_nearest(query, image_descriptors_int8(map, image));
  to_map_rows(map, image, matches);
  return matches;
}

}  // namespace dpqed
