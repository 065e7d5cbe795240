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

// Pairs of rows that are each other's nearest; the lowest row wins a tie.
//
// query: (n, dim), database: (m, dim), in C order.
inline std::vector<Match> mutual_nearest(const float* query, std::size_t n, const float* database,
                                         std::size_t m, std::size_t dim) {
  constexpr std::size_t kRows = 4, kLanes = 16;
  std::vector<float> best_of_query(n, -2.0f), best_of_row(m, -2.0f);
  std::vector<std::size_t> row_of_query(n, m), query_of_row(m, n);
  const auto offer = [&](std::size_t q, std::size_t r, float similarity) {
    if (similarity > best_of_query[q]) best_of_query[q] = similarity, row_of_query[q] = r;
    if (similarity > best_of_row[r]) best_of_row[r] = similarity, query_of_row[r] = q;
  };
  for (std::size_t q = 0; q < n; ++q) {
    const float* const a = query + q * dim;
    for (std::size_t next = 0; next < m; next += kRows) {
      // Rows that were compared already at the end: the same arithmetic for each, so that equal
      // rows tie. Several sums at a time hide the latency of adding.
      const std::size_t r = m < kRows ? next : std::min(next, m - kRows);
      const std::size_t count = std::min(kRows, m);
      const float* rows[kRows];
      for (std::size_t j = 0; j < kRows; ++j) rows[j] = database + (r + std::min(j, count - 1)) * dim;
      float sums[kRows][kLanes] = {};
      std::size_t k = 0;
      for (; k + kLanes <= dim; k += kLanes) {
        for (std::size_t j = 0; j < kRows; ++j) {
          for (std::size_t i = 0; i < kLanes; ++i) sums[j][i] += a[k + i] * rows[j][k + i];
        }
      }
      for (std::size_t j = 0; j < count; ++j) {
        float total = 0;
        for (std::size_t i = 0; i < kLanes; ++i) total += sums[j][i];
        for (std::size_t i = k; i < dim; ++i) total += a[i] * rows[j][i];
        offer(q, r + j, total);
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

// Descriptors of the points that an image of the map sees, in their order.
inline std::vector<float> image_descriptors(const Map& map, std::size_t image) {
  const std::size_t dim = map.local.codec->dim, size = map.local.codec->code_size;
  const std::size_t count = map.num_seen(image);
  std::vector<std::uint8_t> codes;
  codes.reserve(count * size);
  for (std::size_t k = 0; k < count; ++k) {
    const auto code = map.local.codes.begin() +
                      static_cast<std::ptrdiff_t>(map.code_row(image, k) * size);
    codes.insert(codes.end(), code, code + static_cast<std::ptrdiff_t>(size));
  }
  std::vector<float> out(count * dim);
  map.local.codec->decode(codes.data(), count, out.data());
  return out;
}

// Mutual nearest neighbours of a query with an image of the map; rows are those of the map's points.
inline std::vector<Match> match_image(const Map& map, std::size_t image, const float* query,
                                      std::size_t n) {
  const std::vector<float> seen = image_descriptors(map, image);
  std::vector<Match> matches =
      mutual_nearest(query, n, seen.data(), map.num_seen(image), map.local.codec->dim);
  for (Match& match : matches) {
    match.row = static_cast<std::size_t>(map.indices[map.indptr[image] + match.row]);
  }
  return matches;
}

}  // namespace dpqed
