// Searches for objects. An Init brings the first handles at once, and the rest comes in large parts, so that a search costs one round
// trip as a rule. Its end is told to the daemon with the next search of the session.
#ifndef KEYWARD_SEARCH_H
#define KEYWARD_SEARCH_H

#include "session.h"

CK_RV search_init(struct session *session, const CK_ATTRIBUTE *template, CK_ULONG count);
CK_RV search_next(struct session *session, CK_OBJECT_HANDLE *objects, CK_ULONG max, CK_ULONG *count);
CK_RV search_final(struct session *session);

#endif
