// Reads map files of hloc_dpqed (docs/format.md): read_map, parse_map, match_image, mutual_nearest.
#pragma once

#include "map.hpp"
#include "match.hpp"
