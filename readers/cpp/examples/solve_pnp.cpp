// solve_pnp MAP.dpqed QUERY.safetensors IMAGE...: the pose [R | t] of a query, camera from map, by
// OpenCV: nearest neighbours among the points that the named images of the map see, then RANSAC.
//
// QUERY holds keypoints (n, 2) F32 in pixels, the first pixel's centre at 0, descriptors (n, D) F32 of
// length 1, and camera F64: fx, fy, cx, cy and OpenCV's distortion, the first pixel's corner at 0.

#include <algorithm>
#include <cstdio>
#include <opencv2/calib3d.hpp>
#include <set>

#include "dpqed/dpqed.hpp"

template <class T>
std::vector<T> values(const dpqed::Safetensors& file, const char* name) {
  const dpqed::Bytes bytes = file.tensors.at(name).bytes;
  std::vector<T> out(bytes.size / sizeof(T));
  std::copy(bytes.data, bytes.data + bytes.size, reinterpret_cast<std::uint8_t*>(out.data()));
  return out;
}

int main(int argc, char** argv) try {
  const dpqed::Map map = dpqed::read_map(argc > 3 ? argv[1] : "");
  const std::vector<std::uint8_t> data = dpqed::read_file(argv[2]);
  const dpqed::Safetensors query = dpqed::read_safetensors({data.data(), data.size()});
  const auto keypoints = values<float>(query, "keypoints");
  const auto descriptors = values<float>(query, "descriptors");
  const auto camera = values<double>(query, "camera");

  std::set<std::pair<std::size_t, std::size_t>> pairs;  // keypoint, point
  for (int i = 3; i < argc; ++i) {
    const auto& names = map.image_names;
    const auto image = std::find(names.begin(), names.end(), argv[i]) - names.begin();
    if (image == static_cast<long>(names.size())) continue;
    for (const dpqed::Match& match :
         dpqed::match_image(map, image, descriptors.data(), keypoints.size() / 2)) {
      pairs.insert({match.query, match.row});
    }
  }

  std::vector<cv::Point2d> pixels;
  std::vector<cv::Point3d> points;
  for (const auto& [keypoint, point] : pairs) {
    pixels.emplace_back(keypoints[2 * keypoint] + 0.5, keypoints[2 * keypoint + 1] + 0.5);
    points.emplace_back(map.xyz[3 * point], map.xyz[3 * point + 1], map.xyz[3 * point + 2]);
  }
  const cv::Matx33d K(camera[0], 0, camera[2], 0, camera[1], camera[3], 0, 0, 1);
  const std::vector<double> distortion(camera.begin() + 4, camera.end());
  cv::Mat turn, t, R;
  std::vector<int> inliers;
  cv::setRNGSeed(0);
  if (points.size() < 4 || !cv::solvePnPRansac(points, pixels, K, distortion, turn, t, false, 20000,
                                               4.0f, 0.9999, inliers, cv::SOLVEPNP_P3P)) {
    throw dpqed::Error("no pose was found");
  }
  for (std::size_t i = 0; i < inliers.size(); ++i) {
    pixels[i] = pixels[inliers[i]], points[i] = points[inliers[i]];
  }
  pixels.resize(inliers.size()), points.resize(inliers.size());
  cv::solvePnPRefineLM(points, pixels, K, distortion, turn, t);
  cv::Rodrigues(turn, R);
  for (int a = 0; a < 3; ++a) {
    const double* const r = R.ptr<double>(a);
    std::printf("%.17g %.17g %.17g %.17g\n", r[0], r[1], r[2], t.at<double>(a));
  }
  std::fprintf(stderr, "%zu matches, %zu inliers\n", pairs.size(), inliers.size());
} catch (const std::exception& error) {
  std::fprintf(stderr, "solve_pnp: error: %s\n", error.what());
  return 2;
}
