// Streams of interleaved rANS (docs/format.md, "Streams").
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "error.hpp"

namespace dpqed {

class Stream {
 public:
  Stream(Bytes data, std::size_t coin_contexts, std::size_t tables, std::size_t alphabet)
      : data_(data), alphabet_(alphabet) {
    std::size_t at = (coin_contexts + 1) / 2;
    check(at <= data.size, "damaged: a stream is too short");
    for (std::size_t i = 0; i < coin_contexts; ++i) {
      zeros_.push_back(4096 - kOnes[data.data[i / 2] >> (i % 2 * 4) & 15]);
    }
    for (std::size_t t = 0; t < tables; ++t) {
      places_.push_back(at);
      const Bytes used = data.part(at, alphabet / 8);
      at += alphabet / 8;
      for (std::size_t s = 0; s < alphabet; ++s) {
        if (used.data[s / 8] >> (s % 8) & 1) {
          check(at < data.size && data.data[at] > 0, "damaged: a frequency table is wrong");
          ++at;
        }
      }
    }
    packed_.resize(tables);
    check(at < data.size && data.data[at] <= 24, "damaged: a stream is too short");
    const std::size_t lanes = std::size_t{1} << data.data[at++];
    const std::size_t rest = data.size - at;
    check(rest % 2 == 0 && rest >= 4 * lanes, "damaged: a stream is too short");
    states_.resize(lanes);
    for (std::uint32_t& x : states_) {
      x = static_cast<std::uint32_t>(word(at)) | static_cast<std::uint32_t>(word(at + 2)) << 16;
      check(x >= kLow, "damaged: a state is out of range");
      at += 4;
    }
    at_ = at;
  }

  // n coins; context(i) gives the context of each, take(i, value) is given its value.
  template <class Context, class Take>
  void coins(std::size_t n, Context context, Take take) {
    run(n, [&](std::size_t i, std::uint32_t slot) {
      const std::uint32_t zero = zeros_[context(i)];
      return slot < zero ? Slot{zero, slot, 0} : Slot{4096 - zero, slot - zero, 1};
    }, take);
  }

  template <class Context, class Take>
  void symbols(std::size_t n, Context context, Take take) {
    run(n, [&](std::size_t i, std::uint32_t slot) {
      const std::uint32_t entry = table(context(i))[slot];
      return Slot{(entry >> 8 & 4095) + 1, entry >> 20, entry & 255};
    }, take);
  }

  // Uniform integers of the given numbers of bits.
  std::vector<std::int64_t> bits(const std::vector<std::uint8_t>& widths) {
    std::vector<std::int64_t> values(widths.size());
    std::vector<std::size_t> rows;
    for (int first = 0; first < 62; first += 12) {
      rows.clear();
      for (std::size_t i = 0; i < widths.size(); ++i) {
        check(widths[i] <= 62, "damaged: an integer is too large");
        if (widths[i] > first) rows.push_back(i);
      }
      if (rows.empty()) break;
      run(rows.size(), [&](std::size_t k, std::uint32_t slot) {
        const int width = widths[rows[k]] - first, size = width < 12 ? width : 12;
        const std::uint32_t value = slot >> (12 - size);
        return Slot{4096u >> size, slot - (value << (12 - size)), value};
      }, [&](std::size_t k, std::uint32_t value) {
        values[rows[k]] |= static_cast<std::int64_t>(value) << first;
      });
    }
    return values;
  }

  template <class Context>
  std::vector<std::int64_t> integers(std::size_t n, Context context) {
    std::vector<std::uint8_t> widths(n);
    std::vector<bool> positive(n);
    symbols(n, context, [&](std::size_t i, std::uint32_t length) {
      positive[i] = length > 0;
      widths[i] = static_cast<std::uint8_t>(length > 0 ? length - 1 : 0);
    });
    std::vector<std::int64_t> values = bits(widths);
    for (std::size_t i = 0; i < n; ++i) {
      if (positive[i]) values[i] |= std::int64_t{1} << widths[i];
    }
    return values;
  }

  // n integers of one context.
  std::vector<std::int64_t> integers_of(std::size_t n, std::size_t context) {
    return integers(n, [=](std::size_t) { return context; });
  }

  // A table that is not needed any more.
  void forget(std::size_t context) { std::vector<std::uint32_t>().swap(packed_[context]); }

  void finish() const {
    check(at_ == data_.size, "damaged: a stream does not end where it should");
    for (std::uint32_t x : states_) {
      check(x == kLow, "damaged: a stream does not end where it should");
    }
  }

 private:
  static constexpr std::uint32_t kLow = 65536;
  static constexpr std::array<std::uint16_t, 16> kOnes{17,   35,   71,   146,  292,  565,
                                                       1023, 1677, 2419, 3073, 3531, 3804,
                                                       3950, 4025, 4061, 4079};
  struct Slot {
    std::uint32_t frequency, offset, value;
  };

  std::uint16_t word(std::size_t at) const {
    return static_cast<std::uint16_t>(data_.data[at] | data_.data[at + 1] << 8);
  }

  // For each slot its symbol, the symbol's frequency less 1, and how far the slot is in it.
  const std::vector<std::uint32_t>& table(std::size_t context) {
    std::vector<std::uint32_t>& packed = packed_[context];
    if (!packed.empty()) return packed;
    const std::uint8_t* bitmap = data_.data + places_[context];
    std::vector<std::uint32_t> symbols, weights;
    std::uint32_t sum = 0;
    std::size_t heaviest = 0;
    for (std::size_t s = 0; s < alphabet_; ++s) {
      if (!(bitmap[s / 8] >> (s % 8) & 1)) continue;
      const std::uint32_t weight = bitmap[alphabet_ / 8 + symbols.size()];
      if (!weights.empty() && weight > weights[heaviest]) heaviest = symbols.size();
      symbols.push_back(static_cast<std::uint32_t>(s)), weights.push_back(weight);
      sum += weight;
    }
    check(!symbols.empty(), "damaged: a frequency table is empty");
    const auto used = static_cast<std::uint32_t>(symbols.size());
    std::uint32_t missing = 4096;
    for (std::uint32_t& weight : weights) {
      weight = 1 + weight * (4096 - used) / sum;
      missing -= weight;
    }
    weights[heaviest] += missing;
    packed.reserve(4096);
    for (std::size_t k = 0; k < used; ++k) {
      for (std::uint32_t offset = 0; offset < weights[k]; ++offset) {
        packed.push_back(symbols[k] | (weights[k] - 1) << 8 | offset << 20);
      }
    }
    return packed;
  }

  template <class Look, class Take>
  void run(std::size_t n, Look look, Take take) {
    const std::size_t lanes = states_.size();
    steps_ += (n + lanes - 1) / lanes;
    values_ += n;
    check(steps_ <= 16384 + values_ / 64, "damaged: a stream has too few lanes for its values");
    std::uint32_t* const states = states_.data();
    std::size_t at = at_, lane = 0;
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t x = states[lane];
      const Slot found = look(i, x & 4095);
      x = found.frequency * (x >> 12) + found.offset;
      if (x < kLow) {
        check(at < data_.size, "damaged: a stream is too short");
        x = x << 16 | word(at);
        at += 2;
      }
      states[lane] = x;
      if (++lane == lanes) lane = 0;
      take(i, found.value);
    }
    at_ = at;
  }

  Bytes data_;
  std::size_t alphabet_, at_ = 0;
  std::uint64_t steps_ = 0, values_ = 0;
  std::vector<std::uint32_t> zeros_;                // of each coin context: slots that show 0
  std::vector<std::size_t> places_;                 // of the tables in the data
  std::vector<std::vector<std::uint32_t>> packed_;  // made when first used
  std::vector<std::uint32_t> states_;
};

}  // namespace dpqed
