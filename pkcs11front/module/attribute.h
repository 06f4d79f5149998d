// Templates: CK_ATTRIBUTE arrays on the wire.
#ifndef KEYWARD_ATTRIBUTE_H
#define KEYWARD_ATTRIBUTE_H

#include "wire.h"

#define MAX_ATTRIBUTES 256u // of one template
#define MAX_DEPTH 2u        // of templates in templates

// What attributes' values look like; the numbers are the protocol's.
enum kind { KIND_BYTES = 0, KIND_BOOL = 1, KIND_ULONG = 2, KIND_DATE = 3, KIND_MECHANISMS = 4, KIND_TEMPLATE = 5 };

enum kind attribute_kind(CK_ATTRIBUTE_TYPE type);

// encode_template writes an "aA": the values of a template.
void encode_template(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count);

// encode_wanted writes an "fA": which attributes are asked for, and what room there is for each.
void encode_wanted(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count);

// decode_attributes reads the "aA" that answers encode_wanted into the template. What does not fit leaves its buffer alone and gets
// CK_UNAVAILABLE_INFORMATION for a length, as the standard has it.
void decode_attributes(struct in *i, CK_ATTRIBUTE *template, CK_ULONG count);

#endif
