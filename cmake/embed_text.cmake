# cmake -DIN=FILE -DOUT=FILE.cpp -DHEADER=HEADER -DNAME=function -P embed_text.cmake
# Makes a function of namespace ecopipe that returns the file's bytes as a std::string_view.
file(READ "${IN}" hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],)" "\\1\n" bytes "${bytes}")
file(WRITE "${OUT}" "#include \"${HEADER}\"

namespace ecopipe {
namespace {
constexpr unsigned char kBytes[] = {
${bytes}};
}

std::string_view ${NAME}() {
    return {reinterpret_cast<const char*>(kBytes), sizeof kBytes};
}

}  // namespace ecopipe
")
