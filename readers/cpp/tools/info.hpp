// What `hloc-dpqed info` tells of a map file.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "dpqed/dpqed.hpp"

namespace dpqed {

inline std::size_t distinct_codes(const Map& map) {
  const std::size_t size = map.local.codec->code_size;
  std::vector<const std::uint8_t*> rows;
  for (std::size_t i = 0; i < map.local.rows; ++i) rows.push_back(map.local.codes.data() + i * size);
  const auto compare = [=](const std::uint8_t* a, const std::uint8_t* b) {
    return std::memcmp(a, b, size);
  };
  std::sort(rows.begin(), rows.end(),
            [&](const std::uint8_t* a, const std::uint8_t* b) { return compare(a, b) < 0; });
  const auto end = std::unique(rows.begin(), rows.end(), [&](const std::uint8_t* a,
                                                             const std::uint8_t* b) {
    return compare(a, b) == 0;
  });
  return static_cast<std::size_t>(end - rows.begin());
}

// 3D points: one with several codes is several rows of equal coordinates, of which an image sees
// one. Rows that an image sees together are points of their own.
inline std::size_t distinct_places(const Map& map) {
  const auto at = [&](std::size_t row) {
    return std::array<double, 3>{map.xyz[3 * row], map.xyz[3 * row + 1], map.xyz[3 * row + 2]};
  };
  std::vector<std::size_t> order(map.num_points), place(map.num_points);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return at(a) < at(b); });
  std::vector<std::size_t> rows;  // of each place
  for (std::size_t k = 0; k < order.size(); ++k) {
    if (k == 0 || at(order[k]) != at(order[k - 1])) rows.push_back(0);
    place[order[k]] = rows.size() - 1;
    ++rows.back();
  }
  std::vector<std::size_t> last(rows.size(), map.num_images);  // image that saw it last
  std::vector<bool> together(rows.size());
  for (std::size_t image = 0; image < map.num_images; ++image) {
    for (auto k = map.indptr[image]; k < map.indptr[image + 1]; ++k) {
      const std::size_t p = place[static_cast<std::size_t>(map.indices[static_cast<std::size_t>(k)])];
      if (last[p] == image) together[p] = true;
      last[p] = image;
    }
  }
  std::size_t count = 0;
  for (std::size_t p = 0; p < rows.size(); ++p) count += together[p] ? rows[p] : 1;
  return count;
}

inline std::vector<std::pair<std::string, std::size_t>> group_bytes(const Map& map) {
  static const std::vector<std::pair<std::string, std::vector<std::string>>> groups{
      {"descriptors", {"codes"}},
      {"codec", {"codec"}},
      {"points", {"points", "order", "visibility", "scores"}},
      {"images", {"names", "cameras", "poses"}},
      {"global descriptors", {"global.codes", "global.codec"}}};
  std::vector<std::pair<std::string, std::size_t>> out;
  std::size_t rest = map.file_bytes;
  for (const auto& [group, names] : groups) {
    std::size_t bytes = 0;
    bool any = false;
    for (const std::string& name : names) {
      const auto found = map.section_bytes.find(name);
      if (found == map.section_bytes.end()) continue;
      any = true;
      bytes += found->second;
    }
    if (any) out.emplace_back(group, bytes);
    rest -= bytes;
  }
  out.emplace_back("other", rest);
  return out;
}

inline std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// One JSON object, the members of `hloc-dpqed info --json`.
inline std::string info_json(const Map& map) {
  const auto bytes_of = [&](const char* name) {
    const auto found = map.section_bytes.find(name);
    return std::to_string(found == map.section_bytes.end() ? 0 : found->second);
  };
  std::string sections, groups;
  for (const auto& [name, size] : map.section_bytes) {
    sections += (sections.empty() ? "" : ", ") + json_quote(name) + ": " + std::to_string(size);
  }
  for (const auto& [name, size] : group_bytes(map)) {
    groups += (groups.empty() ? "" : ", ") + json_quote(name) + ": " + std::to_string(size);
  }
  return "{\"format_version\": " + std::to_string(map.format_version) +
         ", \"num_points\": " + std::to_string(map.num_points) +
         ", \"num_places\": " + std::to_string(distinct_places(map)) +
         ", \"num_images\": " + std::to_string(map.num_images) +
         ", \"num_observations\": " + std::to_string(map.num_observations) +
         ", \"codec\": " + json_quote(map.local.codec->name) +
         ", \"code_bytes\": " + std::to_string(map.local.codec->code_size) +
         ", \"descriptor_dim\": " + std::to_string(map.local.codec->dim) + ", \"granularity\": " +
         (map.per_observation ? "\"observation\"" : "\"point\"") + ", \"sections\": {" + sections +
         "}, \"descriptor_bytes\": " + bytes_of("codes") + ", \"codec_bytes\": " +
         bytes_of("codec") + ", \"total_bytes\": " + std::to_string(map.file_bytes) +
         ", \"distinct_codes\": " + std::to_string(distinct_codes(map)) + ", \"groups\": {" +
         groups + "}, \"xyz_error\": " + decimal(map.xyz_error) + ", \"pose_pixel_error\": " +
         decimal(map.pixel_error) + ", \"codec_hash\": " +
         (map.codec_hash.empty() ? "null" : json_quote(map.codec_hash)) + ", \"made\": " +
         map.made + "}";
}

inline std::string info_text(const Map& map) {
  std::string out = std::to_string(map.num_points) + " points, " +
                    std::to_string(map.num_images) + " images, " +
                    std::to_string(map.num_observations) + " observations\ncodec " +
                    map.local.codec->name + ", " + std::to_string(map.local.codec->code_size) +
                    " bytes a code, one code for each " +
                    (map.per_observation ? "observation, " : "point, ") +
                    std::to_string(distinct_codes(map)) + " distinct codes, " +
                    std::to_string(map.local.codec->dim) + " dimensions\n\n";
  const double points = static_cast<double>(std::max<std::size_t>(map.num_points, 1));
  char line[128];
  const auto row = [&](const std::string& name, std::size_t bytes) {
    std::snprintf(line, sizeof line, "%-28.60s%12zu%16.2f\n", name.c_str(), bytes,
                  static_cast<double>(bytes) / points);
    out += line;
  };
  std::snprintf(line, sizeof line, "%-28s%12s%16s\n", "section", "bytes", "bytes a point");
  out += line;
  for (const auto& [name, bytes] : map.section_bytes) row(name, bytes);
  std::snprintf(line, sizeof line,
                "\ncoordinates within %g map units, poses within %g pixels of the images\n",
                map.xyz_error, map.pixel_error);
  out += line;
  return out + "whole file: " + std::to_string(map.file_bytes) + " bytes\n";
}

}  // namespace dpqed
