// Which image sees which point (docs/format.md, "Visibility").
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "geometry.hpp"
#include "rans.hpp"

namespace dpqed {

// The images that see each point, points in the order of the file.
struct Tracks {
  std::vector<std::size_t> start, count;  // of each point in `pool`
  std::vector<std::int32_t> pool;

  // Those of point p, increasing.
  template <class Each>
  void of(std::size_t p, Each each) const {
    for (std::size_t i = start[p]; i < start[p] + count[p]; ++i) each(pool[i]);
  }
};

class TrackReader {
 public:
  TrackReader(Bytes data, const std::vector<Cell>& cells, std::size_t images,
              std::size_t observations, std::size_t reach)
      : stream_(data, 117, 6, 64),
        cells_(cells),
        images_(images),
        observations_(observations),
        reach_(reach),
        votes_(images),
        seen_((images + 63) / 64) {}

  Tracks read() {
    std::uint8_t width = 0;
    while (images_ > 1 && (images_ - 1) >> width > 0) ++width;
    const std::vector<std::int64_t> chain =
        stream_.bits(std::vector<std::uint8_t>(images_, width));
    std::vector<bool> met(images_);
    for (const std::int64_t image : chain) {
      check(static_cast<std::size_t>(image) < images_ && !met[image],
            "damaged: the order of the images is no permutation");
      met[image] = true;
    }
    const std::size_t points = cells_.size();
    tracks_.start.resize(points), tracks_.count.resize(points);
    std::size_t stride = 1;
    while (stride < points) stride *= 2;
    if (points > 0) block(0, 1, stride);
    while (stride > 1) {
      stride /= 2;
      for (std::size_t first = stride; first < points; first += 2 * stride * kBlock) {
        const std::size_t left = (points - first + 2 * stride - 1) / (2 * stride);
        block(first, std::min(left, kBlock), stride);
      }
    }
    check(tracks_.pool.size() == observations_, "damaged: it has fewer observations than it says");
    stream_.finish();
    for (std::int32_t& image : tracks_.pool) image = static_cast<std::int32_t>(chain[image]);
    for (std::size_t p = 0; p < points; ++p) {
      const auto first = tracks_.pool.begin() + static_cast<std::ptrdiff_t>(tracks_.start[p]);
      const auto last = first + static_cast<std::ptrdiff_t>(tracks_.count[p]);
      std::sort(first, last);
      check(std::adjacent_find(first, last) == last, "damaged: an image sees a point twice");
    }
    return std::move(tracks_);
  }

 private:
  static constexpr std::size_t kBlock = 8192;
  const std::array<std::uint8_t, 65> buckets_ = buckets();

  struct Candidate {
    std::int32_t image;
    std::uint8_t bucket, seen;
  };

  // Points first, first + 2 stride, ...
  void block(std::size_t first, std::size_t count, std::size_t stride) {
    candidates_.clear(), ends_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      find_candidates(first + 2 * stride * i, stride);
      ends_.push_back(candidates_.size());
    }
    for (std::size_t pass = 0; pass < 4; ++pass) read_coins(pass);

    std::vector<std::size_t> found(count);
    std::size_t begin = 0, total = 0;
    for (std::size_t i = 0; i < count; begin = ends_[i++]) {
      for (std::size_t k = begin; k < ends_[i]; ++k) found[i] += candidates_[k].seen;
      total += found[i];
    }
    const std::vector<std::int64_t> listed = stream_.integers(
        count, [&](std::size_t i) { return std::min<std::size_t>(found[i], 3); });
    const std::size_t room = observations_ - tracks_.pool.size();
    check(total <= room, "damaged: it has more observations than it says");
    std::vector<bool> is_first;
    for (const std::int64_t n : listed) {
      check(static_cast<std::uint64_t>(n) <= room - total,
            "damaged: it has more observations than it says");
      total += static_cast<std::size_t>(n);
      for (std::int64_t k = 0; k < n; ++k) is_first.push_back(k == 0);
    }
    const std::vector<std::int64_t> gaps =
        stream_.integers(is_first.size(), [&](std::size_t k) { return is_first[k] ? 4 : 5; });

    begin = 0;
    std::size_t gap = 0;
    for (std::size_t i = 0; i < count; begin = ends_[i++]) {
      const std::size_t p = first + 2 * stride * i;
      tracks_.start[p] = tracks_.pool.size();
      for (std::size_t k = begin; k < ends_[i]; ++k) {
        if (candidates_[k].seen) tracks_.pool.push_back(candidates_[k].image);
      }
      std::uint64_t image = 0;
      for (std::int64_t k = 0; k < listed[i]; ++k, ++gap) {
        check(static_cast<std::uint64_t>(gaps[gap]) < images_,
              "damaged: an observation is of an image that the file does not have");
        image += (k > 0) + static_cast<std::uint64_t>(gaps[gap]);
        check(image < images_,
              "damaged: an observation is of an image that the file does not have");
        tracks_.pool.push_back(static_cast<std::int32_t>(image));
      }
      tracks_.count[p] = tracks_.pool.size() - tracks_.start[p];
    }
  }

  void find_candidates(std::size_t p, std::size_t stride) {
    std::array<std::size_t, 32> near;
    std::array<std::int64_t, 32> squares;
    std::size_t n = 0;
    std::int64_t least = std::int64_t{1} << 50;
    const auto add = [&](std::size_t other) {
      std::int64_t e = 1;
      for (int a = 0; a < 3; ++a) {
        const std::int64_t d = std::int64_t{cells_[p][a]} - cells_[other][a];
        e += d * d;
      }
      near[n] = other, squares[n++] = e;
      least = std::min(least, e);
    };
    for (std::size_t j = 0; j < reach_; ++j) {
      const std::size_t step = (2 * j + 1) * stride;
      if (step <= p) add(p - step);
      if (step < cells_.size() - p) add(p + step);
    }
    if (n == 0 || images_ == 0) return;
    std::uint32_t sum = 0;
    std::size_t low = seen_.size(), high = 0;  // words of `seen_` that are not zero
    for (std::size_t k = 0; k < n; ++k) {
      std::uint32_t weight = 12;
      for (int t = 1; t <= 6 && squares[k] >= least << t; ++t) weight -= weight > 2 ? 2 : 1;
      sum += weight;
      tracks_.of(near[k], [&](std::int32_t image) {
        const std::size_t word = static_cast<std::size_t>(image) / 64;
        votes_[image] += weight;
        seen_[word] |= std::uint64_t{1} << image % 64;
        low = std::min(low, word), high = std::max(high, word);
      });
    }
    if (low > high) return;
    const std::size_t words = seen_.size();
    for (std::size_t w = low > 0 ? low - 1 : 0; w <= high + 1 && w < words; ++w) {
      const std::uint64_t own = seen_[w];
      std::uint64_t candidates = own | own << 1 | own >> 1;
      if (w > 0) candidates |= seen_[w - 1] >> 63;
      if (w + 1 < words) candidates |= seen_[w + 1] << 63;
      while (candidates != 0) {
        const std::size_t image = 64 * w + lowest_bit(candidates);
        candidates &= candidates - 1;
        if (image >= images_) break;
        const std::uint32_t votes = votes_[image];
        candidates_.push_back({static_cast<std::int32_t>(image),
                               votes > 0 ? buckets_[64 * votes / sum] : std::uint8_t{0}, 0});
        votes_[image] = 0;
      }
    }
    std::fill(seen_.begin() + static_cast<std::ptrdiff_t>(low),
              seen_.begin() + static_cast<std::ptrdiff_t>(high) + 1, std::uint64_t{0});
  }

  static std::size_t lowest_bit(std::uint64_t x) {
#if defined(__GNUC__)
    return static_cast<std::size_t>(__builtin_ctzll(x));
#else
    std::size_t bit = 0;
    for (int step = 32; step > 0; step /= 2) {
      if (x << (64 - step) == 0) x >>= step, bit += static_cast<std::size_t>(step);
    }
    return bit;
#endif
  }

  // 1 + the number of thresholds that a share of the weight in 64ths reaches.
  static std::array<std::uint8_t, 65> buckets() {
    std::array<std::uint8_t, 65> out;
    out.fill(1);
    for (const std::size_t threshold : {3, 6, 10, 16, 26, 39, 52}) {
      for (std::size_t share = threshold; share < out.size(); ++share) ++out[share];
    }
    return out;
  }

  void read_coins(std::size_t pass) {
    const std::size_t gap = std::size_t{8} >> pass;
    asked_.clear();
    std::size_t begin = 0;
    for (const std::size_t end : ends_) {
      for (std::size_t k = begin + gap % 8; k < end; k += std::min<std::size_t>(2 * gap, 8)) {
        asked_.push_back({k, end});
      }
      begin = end;
    }
    stream_.coins(asked_.size(), [&](std::size_t i) -> std::size_t {
      const auto [k, end] = asked_[i];
      const std::size_t bucket = candidates_[k].bucket;
      if (pass == 0) return bucket;
      const std::size_t left = candidates_[k - gap].seen;
      const std::size_t right = k + gap < end ? candidates_[k + gap].seen : 0;
      return 9 + 36 * (pass - 1) + 4 * bucket + 2 * left + right;
    }, [&](std::size_t i, std::uint32_t value) {
      candidates_[asked_[i].first].seen = static_cast<std::uint8_t>(value);
    });
  }

  Stream stream_;
  const std::vector<Cell>& cells_;
  std::size_t images_, observations_, reach_;
  Tracks tracks_;
  std::vector<std::uint32_t> votes_;
  std::vector<std::uint64_t> seen_;  // a bit for each image with votes
  std::vector<Candidate> candidates_;  // of a block, point by point
  std::vector<std::size_t> ends_;      // of each point's candidates
  std::vector<std::pair<std::size_t, std::size_t>> asked_;  // candidate, end of its point's
};

}  // namespace dpqed
