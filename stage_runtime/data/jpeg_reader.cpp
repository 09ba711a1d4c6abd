#include "stage_runtime/data/jpeg_reader.h"

#include "stage_runtime/data/grey.h"

namespace ecopipe {
namespace {

constexpr int kScansMax = 200;  // a progressive file of few bytes may ask for thousands
constexpr long kJpegMemoryMax = 1L << 30;
constexpr int kExifMarker = JPEG_APP0 + 1;
constexpr unsigned kMarkerBytesMax = 0xFFFF;

}  // namespace

JpegReader::JpegReader(std::string_view bytes) : bytes_(bytes) {
    info_.err = ::jpeg_std_error(&errors_.base);
    errors_.base.error_exit = leave;
    errors_.base.emit_message = [](j_common_ptr info, int level) {
        if (level < 0) leave(info);
    };
    errors_.base.output_message = [](j_common_ptr) {};
}

JpegReader::~JpegReader() {
    if (created_) ::jpeg_destroy_decompress(&info_);
}

void JpegReader::leave(j_common_ptr info) {
    auto* errors = reinterpret_cast<Errors*>(info->err);
    errors->base.format_message(info, errors->message.data());
    std::longjmp(errors->jump, 1);
}

void JpegReader::watch(j_common_ptr info) {
    auto* self = reinterpret_cast<j_decompress_ptr>(info);
    if (self->input_scan_number <= kScansMax) return;
    auto* errors = reinterpret_cast<Errors*>(info->err);
    std::snprintf(errors->message.data(), errors->message.size(), "more than %d progressive scans",
                  kScansMax);
    std::longjmp(errors->jump, 1);
}

bool JpegReader::read_header() {
    if (setjmp(errors_.jump) != 0) return false;
    ::jpeg_create_decompress(&info_);
    created_ = true;
    info_.mem->max_memory_to_use = kJpegMemoryMax;
    ::jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                   static_cast<unsigned long>(bytes_.size()));
    ::jpeg_save_markers(&info_, kExifMarker, kMarkerBytesMax);
    ::jpeg_read_header(&info_, TRUE);
    return true;
}

Orientation JpegReader::orientation() const {
    constexpr std::string_view kName{"Exif\0", 5};
    for (jpeg_saved_marker_ptr at = info_.marker_list; at != nullptr; at = at->next) {
        const std::string_view data(reinterpret_cast<const char*>(at->data), at->data_length);
        if (at->marker == kExifMarker && data.starts_with(kName)) return exif_orientation(data);
    }
    return Orientation::kUpright;
}

bool JpegReader::decode(int channels, std::uint8_t* out) {
    const J_COLOR_SPACE stored = info_.jpeg_color_space;
    const bool inks = stored == JCS_CMYK || stored == JCS_YCCK;
    // Grey is of the colours that a model of three channels sees, as for every other picture.
    const bool to_grey = channels == 1 && stored != JCS_GRAYSCALE;
    const auto width = static_cast<std::size_t>(info_.image_width);
    if (inks || to_grey) row_.resize(width * 4);
    if (setjmp(errors_.jump) != 0) return false;
    monitor_.progress_monitor = watch;
    info_.progress = &monitor_;
    info_.out_color_space = inks ? JCS_CMYK : channels == 3 || to_grey ? JCS_RGB : JCS_GRAYSCALE;
    info_.dct_method = JDCT_ISLOW;  // the same bits on every machine
    ::jpeg_start_decompress(&info_);
    while (info_.output_scanline < info_.output_height) {
        std::uint8_t* to = out + info_.output_scanline * width * static_cast<std::size_t>(channels);
        JSAMPROW row = inks || to_grey ? row_.data() : to;
        ::jpeg_read_scanlines(&info_, &row, 1);
        if (inks)
            write_inks(channels, to);
        else if (to_grey)
            write_grey(to);
    }
    ::jpeg_finish_decompress(&info_);
    return true;
}

void JpegReader::write_grey(std::uint8_t* out) const {
    const auto pixels = static_cast<std::size_t>(info_.image_width);
    for (std::size_t x = 0; x < pixels; ++x)
        out[x] = grey_of(row_[3 * x], row_[3 * x + 1], row_[3 * x + 2]);
}

// Files with four inks store what is left of the light, as Adobe's programs write them.
void JpegReader::write_inks(int channels, std::uint8_t* out) const {
    for (std::size_t at = 0; at < row_.size(); at += 4) {
        const unsigned black = row_[at + 3];
        const auto light = [&](std::size_t ink) {
            return static_cast<std::uint8_t>(black -
                                             product_of_bytes(255U - row_[at + ink], black));
        };
        out = put_pixel(out, channels, light(0), light(1), light(2));
    }
}

}  // namespace ecopipe
