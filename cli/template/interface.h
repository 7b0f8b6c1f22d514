/* The interface `{{name}}` {{version}}, for plugins in C. Written by `cargo hotslot header`. */
#ifndef HOTSLOT_INTERFACE_{{prefix}}_H
#define HOTSLOT_INTERFACE_{{prefix}}_H

/* The methods' numbers, with what each takes and gives. A plain value is words, one for each of its parts: a number is
   one; a struct is its fields, an array its elements; an option is one that says whether there is a value (1 or 0), then
   that, or as many zeros. A result is one that says which (0 for Ok), then that; one of a CallError is the value alone,
   and the status says when there is none. &str, String, &[u8], Vec<u8> and what is marked :postcard are bytes. */
enum {
{{methods}}};

#define {{prefix}}_INTERFACE "{{id}}"

#define {{prefix}}_CONTRACT{{contract}}

/* Exports the plugin: once, in one file. SCHEMA is "" without a state; hotslot_no_run, hotslot_no_save and
   hotslot_no_restore stand for what the plugin does not have. INVOKE is the hotslot_invoke that answers the methods. */
#define {{prefix}}_EXPORT(NAME, VERSION, SCHEMA, CREATE, DESTROY, INVOKE, RUN, SAVE, RESTORE) \
    static const void *const hotslot_functions[1] = {(const void *)(INVOKE)}; \
    HOTSLOT_EXPORTED struct hotslot_plugin { \
        hotslot_descriptor descriptor; \
        char magic[16]; \
        uint64_t length; \
        char contract[sizeof {{prefix}}_CONTRACT]; \
    } HOTSLOT_PLUGIN = { \
        { \
            .magic = HOTSLOT_MAGIC, \
            .abi = 1, \
            .size = sizeof(hotslot_descriptor), \
            .panic = 1, /* nothing in C panics */ \
            .function_count = 1, \
            .name = NAME, \
            .version = VERSION, \
            .interface = {{prefix}}_INTERFACE, \
            .schema = SCHEMA, \
            .create = CREATE, \
            .destroy = DESTROY, \
            .run = RUN, \
            .call = hotslot_no_call, \
            .save = SAVE, \
            .restore = RESTORE, \
            .functions = hotslot_functions, \
        }, \
        HOTSLOT_CONTRACT_MAGIC, \
        sizeof {{prefix}}_CONTRACT - 1, \
        {{prefix}}_CONTRACT, \
    };

#endif
