/* On a device the whole API comes from the kit (version 1.3 of the specification: sizes are size_t). */
#include <tee_internal_api.h>
