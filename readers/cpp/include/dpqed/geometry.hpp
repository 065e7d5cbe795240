// Frame, points and poses (docs/format.md, sections of these names).
#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "container.hpp"
#include "rans.hpp"

DPQED_EXACT_BEGIN
namespace dpqed {

using Matrix = std::array<std::array<double, 3>, 3>;

// The rotation of a unit quaternion (w, x, y, z).
inline Matrix rotation_matrix(double w, double x, double y, double z) {
  return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
           {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
           {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

// A point y of the frame is origin + transposed(axes) y in the map.
struct Frame {
  std::array<double, 3> origin{};
  Matrix axes = rotation_matrix(1, 0, 0, 0);

  static Frame read(const Json& metadata, std::uint64_t version) {
    const Json& spec = metadata[version == 1 ? "points" : "frame"];
    Frame frame;
    const std::vector<Json>& origin = spec["origin"].items();
    check(origin.size() == 3, "damaged: its frame is impossible");
    for (int a = 0; a < 3; ++a) frame.origin[a] = origin[a].number();
    if (version == 1) return frame;
    const std::vector<Json>& turn = spec["rotation"].items();
    check(turn.size() == 4, "damaged: its frame is impossible");
    const double w = turn[0].number(), x = turn[1].number(), y = turn[2].number(),
                 z = turn[3].number();
    const double n = std::sqrt(w * w + x * x + y * y + z * z);
    check(std::abs(n - 1) <= 1e-6, "damaged: its frame is impossible");
    frame.axes = rotation_matrix(w / n, x / n, y / n, z / n);
    return frame;
  }

  std::array<double, 3> in_map(const std::array<double, 3>& y) const {
    std::array<double, 3> x;
    for (int a = 0; a < 3; ++a) {
      x[a] = origin[a] + (y[0] * axes[0][a] + y[1] * axes[1][a] + y[2] * axes[2][a]);
      check(std::isfinite(x[a]), "damaged: a coordinate is not finite");
    }
    return x;
  }
};

using Cell = std::array<std::int32_t, 3>;

// The cells of `count` points in the order of the file.
inline std::vector<Cell> read_cells(Bytes data, std::size_t count) {
  Stream stream(data, 0, 1, 64);
  const std::vector<std::int64_t> gaps = stream.integers_of(count, 0);
  stream.finish();
  const auto third = [](std::uint64_t x) {  // every third bit, from the lowest on
    x &= 0x1249249249249249;
    x = (x | x >> 2) & 0x10C30C30C30C30C3;
    x = (x | x >> 4) & 0x100F00F00F00F00F;
    x = (x | x >> 8) & 0x001F0000FF0000FF;
    x = (x | x >> 16) & 0x001F00000000FFFF;
    x = (x | x >> 32) & 0x1FFFFF;
    return static_cast<std::int32_t>(x) - (1 << 20);
  };
  std::vector<Cell> cells(count);
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < count; ++i) {
    number += static_cast<std::uint64_t>(gaps[i]);
    check(number >> 63 == 0, "damaged: a point is out of the grid");
    cells[i] = {third(number >> 2), third(number >> 1), third(number)};
  }
  return cells;
}

struct Grid {
  double step;
  int core;

  static Grid read(const Json& metadata) {
    const double error = metadata["points"]["xyz_error"].number();
    const std::uint64_t core = metadata["points"]["core"].count();
    check(error > 0 && core >= 4 && core <= 19, "damaged: its grid of points is impossible");
    return {2 * error, static_cast<int>(core)};
  }

  double coordinate(std::int32_t cell) const {
    const std::int64_t half = std::int64_t{1} << (core - 1), size = cell < 0 ? -cell : cell;
    std::int64_t steps = size;
    if (size >= 2 * half) {
      const std::int64_t octave = (size - 2 * half) / half, rest = (size - 2 * half) % half;
      steps = (half + rest) << std::min<std::int64_t>(octave + 1, 62 - core);
    }
    return static_cast<double>(cell < 0 ? -steps : steps) * step;
  }
};

// (I, 3, 4) poses [R | t], camera from map.
inline std::vector<double> read_poses(Bytes data, std::size_t count, const Json& metadata,
                                      const Frame& frame) {
  const double rotation_step = metadata["poses"]["rotation_step"].number();
  const double centre_step = metadata["poses"]["centre_step"].number();
  check(rotation_step > 0 && centre_step > 0, "damaged: its grid of poses is impossible");
  Stream stream(data, 0, 3, 64);
  std::vector<std::uint8_t> largest(count);
  stream.symbols(count, [](std::size_t) { return 0; }, [&](std::size_t i, std::uint32_t value) {
    check(value < 4, "damaged: a pose is not a rotation");
    largest[i] = static_cast<std::uint8_t>(value);
  });
  const std::vector<std::int64_t> folded =
      stream.integers(6 * count, [](std::size_t i) { return i % 6 < 3 ? 1 : 2; });
  stream.finish();

  std::vector<double> poses;
  poses.reserve(12 * count);
  std::array<std::uint64_t, 6> sums{};  // modulo 2^64, as damaged files need
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0 && largest[i] != largest[i - 1]) sums[0] = sums[1] = sums[2] = 0;
    std::array<double, 6> values;
    for (int k = 0; k < 6; ++k) {
      const auto v = static_cast<std::uint64_t>(folded[6 * i + k]);
      sums[k] += v & 1 ? ~(v >> 1) : v >> 1;  // -(v + 1) / 2 or v / 2
      values[k] = static_cast<double>(static_cast<std::int64_t>(sums[k])) *
                  (k < 3 ? rotation_step : centre_step);
    }
    const double squares = values[0] * values[0] + values[1] * values[1] + values[2] * values[2];
    check(squares < 1, "damaged: a pose is not a rotation");
    std::array<double, 4> q;
    for (int k = 0, next = 0; k < 4; ++k) {
      q[k] = k == largest[i] ? std::sqrt(1 - squares) : values[next++];
    }
    const Matrix own = rotation_matrix(q[0], q[1], q[2], q[3]);
    const std::array<double, 3> c = frame.in_map({values[3], values[4], values[5]});
    for (int a = 0; a < 3; ++a) {
      std::array<double, 3> r;
      for (int b = 0; b < 3; ++b) {
        r[b] = own[a][0] * frame.axes[0][b] + own[a][1] * frame.axes[1][b] +
               own[a][2] * frame.axes[2][b];
      }
      poses.insert(poses.end(), {r[0], r[1], r[2], -(r[0] * c[0] + r[1] * c[1] + r[2] * c[2])});
    }
  }
  for (const double value : poses) check(std::isfinite(value), "damaged: a pose is not finite");
  return poses;
}

}  // namespace dpqed
DPQED_EXACT_END
