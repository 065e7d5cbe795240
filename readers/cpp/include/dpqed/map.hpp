// A map file as arrays.
#pragma once

#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "codec.hpp"
#include "container.hpp"
#include "geometry.hpp"
#include "text.hpp"
#include "visibility.hpp"

namespace dpqed {

constexpr std::uint64_t kFormatVersion = 2;

// Rows of codes and the codec that decodes them.
struct Descriptors {
  std::shared_ptr<const Codec> codec;
  std::size_t rows = 0;
  std::vector<std::uint8_t> codes;  // rows * codec->code_size

  // (rows, codec->dim) in C order, each row of length 1.
  std::vector<float> decode() const {
    std::vector<float> out(rows * codec->dim);
    codec->decode(codes.data(), rows, out.data());
    return out;
  }
};

struct Map {
  std::uint64_t format_version = 0;
  std::size_t num_images = 0, num_points = 0, num_observations = 0;
  bool per_observation = false;           // a code for each observation, not for each point
  std::vector<std::string> image_names;   // UTF-8
  std::vector<Camera> cameras;
  std::vector<std::int32_t> camera_index;  // of each image
  std::vector<double> cam_from_world;      // (I, 3, 4) [R | t]
  std::vector<double> xyz;                 // (P, 3)
  std::vector<std::int64_t> indptr;        // image i sees points indices[indptr[i]] ...
  std::vector<std::int32_t> indices;       // ... indices[indptr[i + 1] - 1], increasing
  Descriptors local;                       // of points or observations
  std::vector<float> scores;               // of each code
  std::optional<Descriptors> global;       // of images
  std::string made;                        // JSON: how the map was made
  std::string codec_hash;                  // of the codec file, if the codec is in one
  double xyz_error = 0, pixel_error = 0;
  std::map<std::string, std::size_t> section_bytes;
  std::size_t file_bytes = 0;

  // Row of `local` of the k-th point that an image sees.
  std::size_t code_row(std::size_t image, std::size_t k) const {
    const auto at = static_cast<std::size_t>(indptr[image]) + k;
    return per_observation ? at : static_cast<std::size_t>(indices[at]);
  }
  std::size_t num_seen(std::size_t image) const {
    return static_cast<std::size_t>(indptr[image + 1] - indptr[image]);
  }
};

inline std::vector<std::uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) throw Error(path + ": cannot be read");
  std::vector<std::uint8_t> data(static_cast<std::size_t>(size));
  file.seekg(0);
  if (size > 0 && !file.read(reinterpret_cast<char*>(data.data()), size)) {
    throw Error(path + ": cannot be read");
  }
  return data;
}

namespace detail {

DPQED_EXACT_BEGIN
inline std::vector<float> read_scores(Bytes data, std::size_t count, const Json& spec) {
  const double low = spec["low"].number(), high = spec["high"].number();
  const std::uint64_t levels = spec["levels"].count();
  const bool log = spec["scale"].is_text("log");
  check((log || spec["scale"].is_text("linear")) && levels >= 2 && levels <= 64 && low <= high &&
            std::abs(low) <= 3e38 && std::abs(high) <= 3e38 && !(log && low <= 0),
        "damaged: its scale of scores is impossible");
  std::vector<float> level(levels), scores(count);
  for (std::size_t k = 0; k < levels; ++k) {
    const double share = static_cast<double>(k) / static_cast<double>(levels - 1);
    level[k] = static_cast<float>(log ? low * std::pow(high / low, share)
                                      : low + (high - low) * share);
  }
  Stream stream(data, 0, 1, 64);
  stream.symbols(count, [](std::size_t) { return 0; }, [&](std::size_t i, std::uint32_t k) {
    check(k < levels, "damaged: a score is beyond its scale");
    scores[i] = level[k];
  });
  stream.finish();
  return scores;
}
DPQED_EXACT_END

// Adds the bytes that a codec's tensors and codes take; bounded, so that sums do not overflow.
inline std::uint64_t announced(const Json& codec, const Json& codes) {
  std::uint64_t total = product(shape_of(codes));
  const std::uint64_t limit = std::uint64_t{1} << 56;
  total = std::min(total, limit);
  for (const auto& member : codec["tensors"].members()) {
    const ArraySpec spec = ArraySpec::of(member.second);
    total += std::min(product(spec.shape), limit) * item_size(spec.dtype);
    total = std::min(total, limit);
  }
  return total;
}

inline Descriptors read_descriptors(std::shared_ptr<const Codec> codec, Bytes codes,
                                    const Json& shape, std::size_t rows) {
  const std::vector<std::uint64_t> stated = shape_of(shape);
  check(stated.size() == 2 && stated[0] == rows && stated[1] == codec->code_size,
        "damaged: its codes are not those of its codec");
  return {std::move(codec), rows, std::move(read_arrays(codes, {{"U8", stated}})[0])};
}

}  // namespace detail

// A map from the bytes of its file. Throws Error for all that is not one.
//
// find_codec: gives the bytes of the codec file of a hash (64 hexadecimal digits); asked for maps
// without a codec of their own.
inline Map parse_map(Bytes file, const std::function<std::vector<std::uint8_t>(
                                     const std::string& hash)>& find_codec = {}) {
  const Container parts = read_container(file);
  const Json& metadata = parts.metadata;
  Map map;
  const auto version = metadata["format_version"].natural();
  check(version.has_value() && *version >= 1, "its format version is not one of a map file");
  if (*version > kFormatVersion) {
    throw Error("has format version " + std::to_string(*version) + ", this reader reads up to " +
                std::to_string(kFormatVersion));
  }
  map.format_version = *version;
  static const std::vector<std::string> known{
      "codec", "codes",  "cameras",   "names",  "global.codec", "global.codes",
      "order", "padding", "points",   "poses",  "scores",       "visibility"};
  map.file_bytes = map.section_bytes["header"] = file.size;
  const std::vector<Json>& optional = metadata["optional"].items();
  for (const auto& [name, content] : parts.sections) {
    const std::string& own = name;
    if (std::find(known.begin(), known.end(), name) == known.end() &&
        std::none_of(optional.begin(), optional.end(),
                     [&](const Json& item) { return item.is_text(own); })) {
      throw Error("needs section '" + name.substr(0, 40) + "', which this reader does not know");
    }
    map.section_bytes[name] = content.size;
    map.section_bytes["header"] -= content.size;
  }

  // What the file announces, before anything is made of it.
  const std::vector<std::uint64_t> counts = shape_of(metadata["counts"]);
  check(counts.size() == 3, "damaged: its counts are impossible");
  for (const std::uint64_t n : counts) check(n < 1u << 31, "damaged: its counts are impossible");
  map.num_images = counts[0], map.num_points = counts[1], map.num_observations = counts[2];
  const std::uint64_t limit = 256 * static_cast<std::uint64_t>(file.size);
  std::uint64_t total = 64 * counts[0] + 32 * counts[1] + 8 * counts[2] +
                        detail::announced(metadata["codec"], metadata["codes"]);
  if (const Json* global = metadata.find("global")) {
    total += detail::announced((*global)["codec"], (*global)["codes"]);
  }
  check(total <= limit, "damaged: it announces more data than a file of this size holds");
  map.per_observation = metadata["granularity"].is_text("observation");
  check(map.per_observation || metadata["granularity"].is_text("point"),
        "damaged: its granularity is unknown");
  map.made = std::string(metadata["made"].source());

  // Points and who sees them, in the order of the file, then in that of the map.
  const Frame frame = Frame::read(metadata, map.format_version);
  const Grid grid = Grid::read(metadata);
  map.xyz_error = metadata["points"]["xyz_error"].number();
  const std::vector<Cell> cells = read_cells(parts["points"], map.num_points);
  const std::uint64_t reach = metadata["visibility"]["neighbours"].count();
  check(reach >= 1 && reach <= 16, "damaged: its number of neighbours is impossible");
  const Tracks tracks = TrackReader(parts["visibility"], cells, map.num_images,
                                    map.num_observations, reach).read();
  std::vector<std::size_t> place(map.num_points, map.num_points);  // in the file, of each row
  if (parts.has("order")) {
    const std::size_t width = map.num_points <= 65536 ? 2 : 4;
    const std::vector<std::uint8_t> order =
        read_arrays(parts["order"], {{width == 2 ? "U16" : "U32", {map.num_points}}})[0];
    for (std::size_t k = 0; k < map.num_points; ++k) {
      std::size_t row = 0;
      for (std::size_t b = 0; b < width; ++b) {
        row |= static_cast<std::size_t>(order[width * k + b]) << 8 * b;
      }
      check(row < map.num_points && place[row] == map.num_points,
            "damaged: its order of points is no permutation");
      place[row] = k;
    }
  } else {
    std::iota(place.begin(), place.end(), std::size_t{0});
  }
  map.xyz.reserve(3 * map.num_points);
  map.indptr.resize(map.num_images + 1);
  for (const std::int32_t image : tracks.pool) ++map.indptr[image + 1];
  std::partial_sum(map.indptr.begin(), map.indptr.end(), map.indptr.begin());
  std::vector<std::int64_t> next(map.indptr.begin(), map.indptr.end() - 1);
  map.indices.resize(map.num_observations);
  for (std::size_t row = 0; row < map.num_points; ++row) {
    const Cell& cell = cells[place[row]];
    const auto x = frame.in_map(
        {grid.coordinate(cell[0]), grid.coordinate(cell[1]), grid.coordinate(cell[2])});
    map.xyz.insert(map.xyz.end(), x.begin(), x.end());
    tracks.of(place[row], [&](std::int32_t image) {
      map.indices[next[image]++] = static_cast<std::int32_t>(row);
    });
  }

  map.cam_from_world = read_poses(parts["poses"], map.num_images, metadata,
                                  map.format_version == 1 ? Frame() : frame);
  map.pixel_error = metadata["poses"]["pixel_error"].number();
  std::tie(map.cameras, map.camera_index) =
      read_cameras(parts["cameras"], map.num_images, limit);
  map.image_names = read_names(parts["names"], map.num_images, limit);

  std::shared_ptr<const Codec> codec;
  if (parts.has("codec")) {
    codec = read_codec(parts["codec"], metadata["codec"]);
  } else {
    const Json* hash = metadata["codec"].find("hash");
    check(hash != nullptr && hash->kind() == Json::Kind::string && hash->text().size() == 64 &&
              hash->text().find_first_not_of("0123456789abcdef") == std::string::npos,
          "damaged: section 'codec' is missing");
    map.codec_hash = hash->text();
    check(static_cast<bool>(find_codec), "the codec is in a file of its own");
    const std::vector<std::uint8_t> found = find_codec(map.codec_hash);
    const std::vector<std::uint64_t> shape = shape_of(metadata["codes"]);
    check(shape.size() == 2 && shape[1] > 0, "damaged: its codes are not those of its codec");
    codec = read_codec_file({found.data(), found.size()}, map.codec_hash, shape[1]);
  }
  const std::size_t rows = map.per_observation ? map.num_observations : map.num_points;
  map.local = detail::read_descriptors(codec, parts["codes"], metadata["codes"], rows);
  map.scores.assign(rows, 1.0f);
  if (parts.has("scores")) {
    map.scores = detail::read_scores(parts["scores"], rows, metadata["scores"]);
  }
  if (parts.has("global.codes")) {
    const Json& global = metadata["global"];
    map.global = detail::read_descriptors(read_codec(parts["global.codec"], global["codec"]),
                                          parts["global.codes"], global["codes"], map.num_images);
  }
  return map;
}

// The map in a file. codec_file: of a map without a codec of its own; by default it is looked for
// beside the map, under the name that fit-codec gave it.
inline Map read_map(const std::string& path, const std::string& codec_file = "") {
  const std::vector<std::uint8_t> data = read_file(path);
  const auto find_codec = [&](const std::string& hash) {
    if (!codec_file.empty()) return read_file(codec_file);
    const std::size_t end = path.find_last_of("/\\");
    const std::string folder = end == std::string::npos ? "" : path.substr(0, end + 1);
    return read_file(folder + "codec-" + hash.substr(0, 16) + ".safetensors");
  };
  try {
    return parse_map({data.data(), data.size()}, find_codec);
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  } catch (const std::bad_alloc&) {
    throw Error(path + ": does not fit into memory");
  }
}

}  // namespace dpqed
