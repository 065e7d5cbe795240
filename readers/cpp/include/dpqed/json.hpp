// JSON (RFC 8259), as strict as the map file needs: no member twice, no NaN, UTF-8 only.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <locale>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "error.hpp"

namespace dpqed {

// Appends a code point to UTF-8 text.
inline void append_utf8(std::string& text, std::uint32_t c) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | c >> 6), tail(0);
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | c >> 12), tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0);
  }
}

// The code points of valid UTF-8; throws for anything else.
inline std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<std::uint8_t>(text[i]);
    const int more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : 3;
    check(more < 3 || first >> 3 == 30, "damaged: text is not UTF-8");
    check(i + more < text.size(), "damaged: text is not UTF-8");
    std::uint32_t c = more == 0 ? first : first & (0x3F >> more);
    for (int k = 1; k <= more; ++k) {
      const auto byte = static_cast<std::uint8_t>(text[i + k]);
      check(byte >> 6 == 2, "damaged: text is not UTF-8");
      c = c << 6 | (byte & 0x3F);
    }
    static const std::uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    check(c >= least[more] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF),
          "damaged: text is not UTF-8");
    out += static_cast<char32_t>(c);
    i += more + 1;
  }
  return out;
}

// A string as a JSON string in ASCII, as Python's json writes it.
inline std::string json_quote(const std::string& text) {
  std::string out = "\"";
  const auto escape = [&](std::uint32_t unit) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[unit >> shift & 15];
  };
  for (std::uint32_t c : decode_utf8(text)) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (c >= 32 && c < 127) {
          out += static_cast<char>(c);
        } else if (c < 0x10000) {
          escape(c);
        } else {
          escape(0xD800 + ((c - 0x10000) >> 10)), escape(0xDC00 + ((c - 0x10000) & 0x3FF));
        }
    }
  }
  return out + '"';
}

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };
  using Member = std::pair<std::string, Json>;

  static Json parse(std::string_view text) {
    Parser parser{text, 0};
    Json value = parser.value(0);
    parser.blanks();
    check(parser.at == text.size(), "damaged: JSON has text behind its end");
    return value;
  }

  Kind kind() const { return kind_; }
  bool is_object() const { return kind_ == Kind::object; }
  bool is_null() const { return kind_ == Kind::null; }

  // The member, or null where there is none.
  const Json* find(std::string_view key) const {
    for (const Member& member : members_) {
      if (member.first == key) return &member.second;
    }
    return nullptr;
  }
  const Json& operator[](std::string_view key) const {
    const Json* found = find(key);
    check(is_object() && found != nullptr, "damaged: a member of the metadata is missing");
    return *found;
  }
  const std::vector<Member>& members() const {
    check(is_object(), "damaged: the metadata have a wrong type");
    return members_;
  }
  const std::vector<Json>& items() const {
    check(kind_ == Kind::array, "damaged: the metadata have a wrong type");
    return items_;
  }
  const std::string& text() const {
    check(kind_ == Kind::string, "damaged: the metadata have a wrong type");
    return text_;
  }
  bool is_text(std::string_view other) const { return kind_ == Kind::string && text_ == other; }

  // An integer from 0 up; more than 2^62 is 2^62. Nothing for any other value.
  std::optional<std::uint64_t> natural() const {
    if (kind_ != Kind::number || text_.find_first_not_of("0123456789") != std::string::npos) {
      if (kind_ == Kind::number && text_ == "-0") return 0;
      return std::nullopt;
    }
    const std::uint64_t limit = std::uint64_t{1} << 62;
    std::uint64_t value = 0;
    for (char c : text_) {
      value = value * 10 + static_cast<std::uint64_t>(c - '0');
      if (value >= limit) return limit;
    }
    return value;
  }
  std::uint64_t count() const {
    const auto value = natural();
    check(value.has_value(), "damaged: the metadata have a number that is impossible");
    return *value;
  }

  // A finite number.
  double number() const {
    check(kind_ == Kind::number, "damaged: the metadata have a wrong type");
    const double value = to_double(text_);
    check(std::isfinite(value), "damaged: the metadata have a number that is impossible");
    return value;
  }

  // The text of this value in the source.
  std::string_view source() const { return source_; }

  // As Python's json.dumps(value, sort_keys=True) writes it, numbers as they were.
  std::string dump() const {
    std::string out;
    switch (kind_) {
      case Kind::null: return "null";
      case Kind::boolean: return boolean_ ? "true" : "false";
      case Kind::number: return text_;
      case Kind::string: return json_quote(text_);
      case Kind::array:
        for (const Json& item : items_) out += (out.empty() ? "" : ", ") + item.dump();
        return "[" + out + "]";
      case Kind::object: {
        std::vector<const Member*> sorted;
        for (const Member& member : members_) sorted.push_back(&member);
        std::sort(sorted.begin(), sorted.end(),
                  [](const Member* a, const Member* b) { return a->first < b->first; });
        for (const Member* member : sorted) {
          out += (out.empty() ? "" : ", ") + json_quote(member->first) + ": " +
                 member->second.dump();
        }
        return "{" + out + "}";
      }
    }
    return out;
  }

 private:
  static constexpr int kDepth = 100;

  static double to_double(const std::string& text) {
    double value = 0;
#if defined(__cpp_lib_to_chars)
    const auto end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, value);
    if (result.ec == std::errc() && result.ptr == end) return value;
    return std::strtod(text.c_str(), nullptr);  // out of range: infinite or next to zero
#else
    std::istringstream stream(text);
    stream.imbue(std::locale::classic());
    stream >> value;
    return value;
#endif
  }

  struct Parser {
    std::string_view text;
    std::size_t at;

    [[noreturn]] static void fail() { throw Error("damaged: no JSON"); }
    char peek() const { return at < text.size() ? text[at] : '\0'; }
    void blanks() {
      while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at;
    }
    bool take(char c) {
      if (at >= text.size() || text[at] != c) return false;
      ++at;
      return true;
    }
    void word(std::string_view expected) {
      if (text.substr(at, expected.size()) != expected) fail();
      at += expected.size();
    }
    bool digit() const { return peek() >= '0' && peek() <= '9'; }
    void digits() {
      if (!digit()) fail();
      while (digit()) ++at;
    }

    Json value(int depth) {
      if (depth > kDepth) throw Error("damaged: JSON is nested too deeply");
      blanks();
      const std::size_t start = at;
      Json out;
      switch (peek()) {
        case '{': object(out, depth); break;
        case '[': array(out, depth); break;
        case '"': out.kind_ = Kind::string, out.text_ = string(); break;
        case 't': word("true"), out.kind_ = Kind::boolean, out.boolean_ = true; break;
        case 'f': word("false"), out.kind_ = Kind::boolean; break;
        case 'n': word("null"); break;
        default: number(out);
      }
      out.source_ = text.substr(start, at - start);
      return out;
    }

    void object(Json& out, int depth) {
      out.kind_ = Kind::object;
      ++at, blanks();
      if (take('}')) return;
      do {
        blanks();
        if (peek() != '"') fail();
        std::string key = string();
        blanks();
        if (!take(':')) fail();
        out.members_.emplace_back(std::move(key), value(depth + 1));
        blanks();
      } while (take(','));
      if (!take('}')) fail();
      std::vector<std::string_view> keys;
      for (const Member& member : out.members_) keys.push_back(member.first);
      std::sort(keys.begin(), keys.end());
      if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) {
        throw Error("damaged: JSON has a member twice");
      }
    }

    void array(Json& out, int depth) {
      out.kind_ = Kind::array;
      ++at, blanks();
      if (take(']')) return;
      do {
        out.items_.push_back(value(depth + 1));
        blanks();
      } while (take(','));
      if (!take(']')) fail();
    }

    void number(Json& out) {
      const std::size_t start = at;
      take('-');
      if (!take('0')) digits();
      if (take('.')) digits();
      if (take('e') || take('E')) {
        if (!take('+')) take('-');
        digits();
      }
      out.kind_ = Kind::number;
      out.text_ = std::string(text.substr(start, at - start));
    }

    std::uint32_t unit() {
      std::uint32_t value = 0;
      for (int i = 0; i < 4; ++i) {
        const char c = peek();
        const int nibble = c >= '0' && c <= '9'   ? c - '0'
                           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                  : -1;
        if (nibble < 0) fail();
        value = value << 4 | static_cast<std::uint32_t>(nibble);
        ++at;
      }
      return value;
    }

    std::string string() {
      std::string out;
      ++at;
      while (true) {
        if (at >= text.size() || static_cast<unsigned char>(text[at]) < 32) fail();
        const char c = text[at++];
        if (c == '"') return out;
        if (c != '\\') {
          out += c;
          continue;
        }
        const char escaped = peek();
        ++at;
        switch (escaped) {
          case '"': case '\\': case '/': out += escaped; break;
          case 'b': out += '\b'; break;
          case 'f': out += '\f'; break;
          case 'n': out += '\n'; break;
          case 'r': out += '\r'; break;
          case 't': out += '\t'; break;
          case 'u': {
            std::uint32_t code = unit();
            if (code >= 0xD800 && code < 0xDC00 && text.substr(at, 2) == "\\u") {
              const std::size_t before = at;
              at += 2;
              const std::uint32_t low = unit();
              if (low >= 0xDC00 && low < 0xE000) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
              } else {
                at = before;
              }
            }
            if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;  // half a character
            append_utf8(out, code);
            break;
          }
          default: fail();
        }
      }
    }
  };

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  std::string text_;  // of a string, or of a number as it is written
  std::vector<Json> items_;
  std::vector<Member> members_;
  std::string_view source_;
};

}  // namespace dpqed
