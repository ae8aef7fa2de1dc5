// SPDX-License-Identifier: GPL-2.0-only

/**
  @file
  The calls to mysqld that need std::string or std::vector. See include/clone_shim.h.
*/

#include "clone_shim.h"

#include <string>
#include <utility>
#include <vector>

namespace {

// The types of include/mysql/components/services/clone_protocol_service.h.
using Values = std::vector<std::string>;
using Key_values = std::vector<std::pair<std::string, std::string>>;
using Values_method = int (*)(THD *, Values &);
using Key_values_method = int (*)(THD *, Key_values &);
using Version_method = int (*)(const std::string &, const std::string &, const bool, const bool);

std::string to_string(clone_shim_text text) { return {text.data, text.length}; }

clone_shim_text to_text(const std::string &string) { return {string.data(), string.size()}; }

/** Runs call; nothing that C++ throws may reach Rust. */
template <typename Call>
int without_exceptions(Call call) noexcept {
  try {
    return call();
  } catch (...) {
    return CLONE_SHIM_NO_MEMORY;
  }
}

}  // namespace

int clone_shim_get_charsets(clone_shim_method method, THD *thd, clone_shim_sink sink, void *context) {
  return without_exceptions([=] {
    Values names;
    const int error = reinterpret_cast<Values_method>(method)(thd, names);
    if (error == 0) {
      for (const auto &name : names) sink(context, to_text(name));
    }
    return error;
  });
}

int clone_shim_validate_charsets(clone_shim_method method, THD *thd, const clone_shim_text *names, size_t count) {
  return without_exceptions([=] {
    Values values;
    values.reserve(count);
    for (size_t i = 0; i < count; ++i) values.push_back(to_string(names[i]));
    return reinterpret_cast<Values_method>(method)(thd, values);
  });
}

int clone_shim_get_configs(clone_shim_method method, THD *thd, const clone_shim_text *names, size_t count,
                           clone_shim_sink sink, void *context) {
  return without_exceptions([=] {
    Key_values configs;
    configs.reserve(count);
    for (size_t i = 0; i < count; ++i) configs.emplace_back(to_string(names[i]), std::string());
    const int error = reinterpret_cast<Key_values_method>(method)(thd, configs);
    if (error == 0) {
      for (const auto &config : configs) sink(context, to_text(config.second));
    }
    return error;
  });
}

int clone_shim_validate_configs(clone_shim_method method, THD *thd, const clone_shim_pair *configs, size_t count) {
  return without_exceptions([=] {
    Key_values key_values;
    key_values.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      key_values.emplace_back(to_string(configs[i].name), to_string(configs[i].value));
    }
    return reinterpret_cast<Key_values_method>(method)(thd, key_values);
  });
}

int clone_shim_validate_version(clone_shim_method method, clone_shim_text recipient, clone_shim_text donor,
                                bool recipient_lts, bool donor_lts) {
  return without_exceptions([=] {
    return reinterpret_cast<Version_method>(method)(to_string(recipient), to_string(donor), recipient_lts,
                                                    donor_lts);
  });
}
