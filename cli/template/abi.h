/* The C ABI of hotslot plugins, version 1: see the documentation of hotslot_plugin::abi. For GCC and Clang. */
#ifndef HOTSLOT_ABI_H
#define HOTSLOT_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* How a call ended. */
typedef int32_t hotslot_status;
enum {
    HOTSLOT_OK = 0,
    HOTSLOT_FAILED = 1,      /* with the error message */
    HOTSLOT_PANICKED = 2,    /* with the panic message */
    HOTSLOT_UNSUPPORTED = 3, /* no such method */
    HOTSLOT_MALFORMED = 4,   /* the arguments do not match the contract */
};

/* Bytes borrowed for the duration of a call. */
typedef struct {
    const uint8_t *data;
    size_t len;
} hotslot_slice;

/* Bytes whose ownership is transferred, with the function that frees them where they were allocated. */
typedef struct {
    uint8_t *data;
    size_t len;
    size_t capacity;
    void (*release)(uint8_t *data, size_t len, size_t capacity);
} hotslot_buffer;

/* One argument of a method: a word, or the address of `len` bytes borrowed for the call. */
typedef struct {
    uint64_t word;
    uint64_t len; /* HOTSLOT_IS_WORD for a word */
} hotslot_argument;

#define HOTSLOT_IS_WORD UINT64_MAX

/* One call of a method. The plugin fills the words, up to word_count of them, and the output. */
typedef struct {
    const hotslot_argument *arguments;
    uint32_t argument_count;
    uint32_t word_count;
    uint64_t *words;
    hotslot_buffer output; /* the bytes of the result, or the error message */
} hotslot_frame;

/* What the host offers. Valid for as long as the plugin's code is mapped, and usable from every thread. */
typedef struct {
    size_t size; /* of this struct in the host: fields are only ever added */
    const void *context;
    const bool *stop; /* atomic */
    hotslot_slice config;
    void (*log)(const void *context, uint32_t level, hotslot_slice target, hotslot_slice message); /* 1 error, 5 trace */
    void (*send)(const void *context, hotslot_slice message);
    hotslot_status (*service)(const void *context, hotslot_slice contract, uint32_t *number, hotslot_buffer *error);
    hotslot_status (*invoke)(const void *context, uint32_t service, uint32_t method, hotslot_frame *frame);
    /* Four texts: target, message, fields, spans. */
    void (*event)(const void *context, uint32_t level, const hotslot_slice *texts, size_t count);
    uint32_t (*log_level)(const void *context); /* the most verbose level that is listened to; 0 for none */
} hotslot_host;

/* create is called first and destroy last; the others may be called from any thread, and concurrently. */
typedef struct {
    char magic[16];
    uint32_t abi, size, panic, function_count;
    char name[96], version[96], interface[96], schema[96];
    hotslot_status (*create)(const hotslot_host *host, void **instance, hotslot_buffer *error);
    hotslot_status (*destroy)(void *instance);
    hotslot_status (*run)(const void *instance, const bool *stop, hotslot_buffer *error);
    hotslot_status (*call)(const void *instance, uint32_t method, hotslot_slice input, hotslot_buffer *output);
    hotslot_status (*save)(const void *instance, hotslot_buffer *output);
    hotslot_status (*restore)(const void *instance, hotslot_slice schema, hotslot_slice state, hotslot_buffer *error);
    const void *const *functions;
} hotslot_descriptor;

typedef hotslot_status hotslot_invoke(const void *instance, uint32_t method, hotslot_frame *frame);

#define HOTSLOT_MAGIC {'h', 'o', 't', 's', 'l', 'o', 't', 0, 'p', 'l', 'u', 'g', 'i', 'n', 0, 1}
#define HOTSLOT_CONTRACT_MAGIC {'h', 'o', 't', 's', 'l', 'o', 't', 0, 'c', 'o', 'n', 't', 'r', 'a', 'c', 't'}

#if defined(__APPLE__)
#define HOTSLOT_EXPORTED __attribute__((section("__DATA,__hotslot"), used, visibility("default")))
#elif defined(_WIN32)
#define HOTSLOT_EXPORTED __declspec(dllexport) __attribute__((section(".hotslot"), used))
#else
#define HOTSLOT_EXPORTED __attribute__((section(".hotslot"), used, visibility("default")))
#endif

/* For the entries that a plugin does not implement. */
static inline hotslot_status hotslot_no_run(const void *instance, const bool *stop, hotslot_buffer *error) {
    (void)instance, (void)stop, (void)error;
    return HOTSLOT_UNSUPPORTED;
}
static inline hotslot_status hotslot_no_call(const void *instance, uint32_t method, hotslot_slice input,
                                             hotslot_buffer *output) {
    (void)instance, (void)method, (void)input, (void)output;
    return HOTSLOT_UNSUPPORTED;
}
static inline hotslot_status hotslot_no_save(const void *instance, hotslot_buffer *output) {
    (void)instance, (void)output;
    return HOTSLOT_UNSUPPORTED;
}
static inline hotslot_status hotslot_no_restore(const void *instance, hotslot_slice schema, hotslot_slice state,
                                                hotslot_buffer *error) {
    (void)instance, (void)schema, (void)state, (void)error;
    return HOTSLOT_UNSUPPORTED;
}

static inline void hotslot_free(uint8_t *data, size_t len, size_t capacity) {
    (void)len, (void)capacity;
    free(data);
}

/* Transfers ownership of a copy of these bytes; returns the given status, for the caller to return. */
static inline hotslot_status hotslot_give(hotslot_buffer *to, const void *data, size_t len, hotslot_status status) {
    uint8_t *copy = len ? malloc(len) : NULL;
    if (len && !copy) return HOTSLOT_FAILED;
    if (len) memcpy(copy, data, len);
    to->data = copy, to->len = len, to->capacity = len, to->release = copy ? hotslot_free : NULL;
    return status;
}

/* Transfers ownership of a copy of an error message. */
static inline hotslot_status hotslot_fail(hotslot_buffer *to, const char *text) {
    return hotslot_give(to, text, strlen(text), HOTSLOT_FAILED);
}

/* Reads the argument at this index if it is a word. Negative numbers are sign-extended. */
static inline bool hotslot_take_word(const hotslot_frame *frame, uint32_t at, uint64_t *word) {
    if (at >= frame->argument_count || frame->arguments[at].len != HOTSLOT_IS_WORD) return false;
    *word = frame->arguments[at].word;
    return true;
}

/* Reads the argument at this index if it is bytes. */
static inline bool hotslot_take_bytes(const hotslot_frame *frame, uint32_t at, hotslot_slice *bytes) {
    if (at >= frame->argument_count || frame->arguments[at].len == HOTSLOT_IS_WORD) return false;
    bytes->data = (const uint8_t *)(uintptr_t)frame->arguments[at].word;
    bytes->len = (size_t)frame->arguments[at].len;
    return true;
}

/* Writes a word of the result at this index, if the host provided space for it. */
static inline hotslot_status hotslot_put_word(hotslot_frame *frame, uint32_t at, uint64_t word) {
    if (at >= frame->word_count) return HOTSLOT_MALFORMED;
    frame->words[at] = word;
    return HOTSLOT_OK;
}

/* Floating-point numbers cross as their bits. */
static inline uint64_t hotslot_word_of_f64(double number) {
    uint64_t word;
    memcpy(&word, &number, sizeof word);
    return word;
}
static inline double hotslot_f64_of_word(uint64_t word) {
    double number;
    memcpy(&number, &word, sizeof number);
    return number;
}
static inline uint64_t hotslot_word_of_f32(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}
static inline float hotslot_f32_of_word(uint64_t word) {
    uint32_t bits = (uint32_t)word;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

#endif
