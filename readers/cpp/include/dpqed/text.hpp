// Image names and cameras (docs/format.md, "Names and cameras").
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "json.hpp"
#include "rans.hpp"

namespace dpqed {

struct Camera {
  std::string model;  // COLMAP's name
  std::uint64_t width, height;
  std::vector<double> params;
};

// Parameters of a camera model of COLMAP, 0 for an unknown one.
inline std::size_t num_camera_params(const std::string& model) {
  static const std::pair<const char*, std::size_t> known[] = {
      {"SIMPLE_PINHOLE", 3}, {"PINHOLE", 4}, {"SIMPLE_RADIAL", 4}, {"RADIAL", 5},
      {"OPENCV", 8}, {"OPENCV_FISHEYE", 8}, {"FULL_OPENCV", 12}, {"FOV", 5},
      {"SIMPLE_RADIAL_FISHEYE", 4}, {"RADIAL_FISHEYE", 5}, {"THIN_PRISM_FISHEYE", 12},
      {"RAD_TAN_THIN_PRISM_FISHEYE", 16}, {"SIMPLE_DIVISION", 4}, {"DIVISION", 5},
      {"SIMPLE_FISHEYE", 3}, {"FISHEYE", 4}, {"EUCM", 6}, {"EQUIRECTANGULAR", 2}};
  for (const auto& [name, count] : known) {
    if (model == name) return count;
  }
  return 0;
}

inline std::u32string read_text(Stream& stream, std::size_t size) {
  const auto count = static_cast<std::uint64_t>(stream.integers_of(1, 0)[0]);
  check(count <= size, "damaged: a text is wrong");
  std::u32string letters, text;
  for (const std::int64_t code : stream.integers_of(count, 0)) {
    check(code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF), "damaged: a text is wrong");
    letters += static_cast<char32_t>(code);
  }
  text.reserve(size);
  for (const std::int64_t place : stream.integers_of(size, 1)) {
    check(static_cast<std::uint64_t>(place) < count, "damaged: a text is wrong");
    text += letters[place];
  }
  return text;
}

inline std::string utf8(const std::u32string& text) {
  std::string out;
  for (const char32_t c : text) append_utf8(out, c);
  return out;
}

// The names of `count` images in UTF-8; more than `limit` characters are refused.
inline std::vector<std::string> read_names(Bytes data, std::size_t count, std::size_t limit) {
  const std::size_t longest = 4096;
  Stream stream(data, 0, 5, 64);
  const std::vector<std::int64_t> prefixes = stream.integers_of(count, 2);
  const std::vector<std::int64_t> suffixes = stream.integers_of(count, 3);
  const std::vector<std::int64_t> sizes = stream.integers_of(count, 4);
  std::size_t total = 0;
  for (const std::int64_t size : sizes) {
    check(static_cast<std::uint64_t>(size) <= longest, "damaged: the image names are too long");
    total += static_cast<std::size_t>(size);
  }
  check(total <= limit, "damaged: the image names are too long");
  const std::u32string text = read_text(stream, total);
  stream.finish();
  std::vector<std::string> names;
  std::u32string before;
  std::size_t at = 0;
  total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto prefix = static_cast<std::uint64_t>(prefixes[i]);
    const auto suffix = static_cast<std::uint64_t>(suffixes[i]);
    const auto size = static_cast<std::size_t>(sizes[i]);
    check(prefix <= before.size() && suffix <= before.size() - prefix,
          "damaged: an image name is wrong");
    before = before.substr(0, prefix) + text.substr(at, size) +
             before.substr(before.size() - suffix);
    at += size, total += before.size();
    check(before.size() <= longest && total <= limit, "damaged: the image names are too long");
    names.push_back(utf8(before));
  }
  return names;
}

// The cameras, and the camera of each of `count` images.
inline std::pair<std::vector<Camera>, std::vector<std::int32_t>> read_cameras(
    Bytes data, std::size_t count, std::size_t limit) {
  Stream stream(data, 0, 2, 64);
  const auto size = static_cast<std::uint64_t>(stream.integers_of(1, 0)[0]);
  check(size <= limit, "damaged: the cameras are too long");
  const std::string text = utf8(read_text(stream, size));
  stream.finish();
  const Json value = Json::parse(text);
  check(value.items().size() == 2, "damaged: the cameras are wrong");
  std::vector<Camera> cameras;
  for (const Json& row : value.items()[0].items()) {
    const std::vector<Json>& parts = row.items();
    check(parts.size() == 4, "damaged: a camera is wrong");
    Camera camera{parts[0].text(), parts[1].count(), parts[2].count(), {}};
    for (const Json& param : parts[3].items()) camera.params.push_back(param.number());
    const std::size_t params = num_camera_params(camera.model);
    if (params == 0) throw Error("camera model '" + camera.model.substr(0, 40) + "' is unknown");
    check(camera.params.size() == params, "damaged: a camera has a wrong number of parameters");
    cameras.push_back(std::move(camera));
  }
  std::vector<std::int32_t> index;
  const Json& stored = value.items()[1];
  if (stored.is_null()) {
    index.assign(count, 0);
  } else {
    for (const Json& item : stored.items()) {
      index.push_back(static_cast<std::int32_t>(std::min<std::uint64_t>(item.count(), 1 << 30)));
    }
  }
  check(index.size() == count, "damaged: an image has a camera that the file does not have");
  for (const std::int32_t i : index) {
    check(static_cast<std::size_t>(i) < cameras.size(),
          "damaged: an image has a camera that the file does not have");
  }
  return {std::move(cameras), std::move(index)};
}

}  // namespace dpqed
