// Arrays of known dtypes and shapes, as columns of bytes (docs/format.md, "Arrays").
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "container.hpp"
#include "rans.hpp"

namespace dpqed {

struct ArraySpec {
  std::string dtype;
  std::vector<std::uint64_t> shape;

  std::size_t bytes() const {
    const std::uint64_t count = product(shape);
    check(count < std::uint64_t{1} << 40, "damaged: an array is impossibly large");
    return count * item_size(dtype);
  }
  static ArraySpec of(const Json& value) {
    const std::vector<Json>& parts = value.items();
    check(parts.size() == 2, "damaged: an array has an impossible dtype or shape");
    ArraySpec spec{parts[0].text(), shape_of(parts[1])};
    check(item_size(spec.dtype) > 0, "damaged: an array has an impossible dtype or shape");
    return spec;
  }
};

// The bytes of each array, in C order.
inline std::vector<std::vector<std::uint8_t>> read_arrays(Bytes data,
                                                          const std::vector<ArraySpec>& specs) {
  struct Plan {
    std::vector<bool> coded;
    std::size_t rows;
  };
  std::vector<Plan> plans;
  std::size_t at = 0, contexts = 0;
  for (const ArraySpec& spec : specs) {
    const std::size_t columns = data.part(at, 1).data[0], size = spec.bytes();
    check(columns > 0 && size % columns == 0, "damaged: an array has impossible columns");
    const Bytes mask = data.part(at + 1, (columns + 7) / 8);
    at += 1 + mask.size;
    Plan plan{std::vector<bool>(columns), size / columns};
    for (std::size_t j = 0; j < columns; ++j) {
      plan.coded[j] = mask.data[j / 8] >> (j % 8) & 1;
      contexts += plan.coded[j];
    }
    plans.push_back(std::move(plan));
  }
  std::size_t raw = at;
  for (const Plan& plan : plans) {
    for (const bool coded : plan.coded) at += coded ? 0 : plan.rows;
    check(at <= data.size, "damaged: an array is too short");
  }
  std::unique_ptr<Stream> stream;
  if (contexts > 0) {
    stream = std::make_unique<Stream>(data.from(at), 0, contexts, 256);
  } else {
    check(at == data.size, "damaged: an array is too long");
  }
  std::vector<std::vector<std::uint8_t>> arrays;
  std::size_t context = 0;
  for (const Plan& plan : plans) {
    const std::size_t columns = plan.coded.size();
    std::vector<std::uint8_t> table(plan.rows * columns);
    for (std::size_t j = 0; j < columns; ++j) {
      std::uint8_t* const column = table.data() + j;
      if (plan.coded[j]) {
        stream->symbols(plan.rows, [=](std::size_t) { return context; },
                        [=](std::size_t i, std::uint32_t value) {
                          column[i * columns] = static_cast<std::uint8_t>(value);
                        });
        stream->forget(context++);
      } else {
        for (std::size_t i = 0; i < plan.rows; ++i) column[i * columns] = data.data[raw + i];
        raw += plan.rows;
      }
    }
    arrays.push_back(std::move(table));
  }
  if (stream != nullptr) stream->finish();
  return arrays;
}

}  // namespace dpqed
