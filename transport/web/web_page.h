#pragma once
// The page that shows a run or a federation, and the document that it draws (docs/VIEW.md).

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "transport/web/web_server.h"

namespace ecopipe {

// transport/web/page.html, compiled in.
[[nodiscard]] std::string_view web_page_html();

// "/" is the page, "/view.json" the document. `document` gives its JSON text and `revision` a
// number that changes with it; both are called on the server's thread.
[[nodiscard]] std::map<std::string, WebRoute> web_page_routes(
    std::function<std::string()> document, std::function<std::string()> revision);

// The page's own policy: its one script and one style sheet, known by their hashes, and requests to
// where it came from; nothing else is loaded or run, whatever a device's name or message contains.
[[nodiscard]] std::string content_security_policy(std::string_view html);

}  // namespace ecopipe
