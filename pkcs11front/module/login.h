// Logins that are repeated when the daemon has been away: what C_Login sent, in memory that is neither swapped nor dumped and that a
// child of fork does not get. A PIN is kept only if the token asks for one.
#ifndef KEYWARD_LOGIN_H
#define KEYWARD_LOGIN_H

#include "link.h"
#include "session.h"

// login_remember keeps a login with a slot, which has been made at an epoch. It is sent again as it is: the user, the PIN or NULL, and for
// C_LoginUser the name.
void login_remember(CK_SLOT_ID slot, enum call call, struct args args, uint64_t epoch);
void login_forget(CK_SLOT_ID slot);
void login_forget_all(void);

// login_new_pin makes a login with a PIN one with another PIN.
void login_new_pin(CK_SLOT_ID slot, const CK_BYTE *pin, CK_ULONG len);

// login_restore logs in again over a link, in a session of the daemon, if there is a login with the slot and the daemon does not have it.
// A login that fails is forgotten: a PIN that was refused is not tried again.
enum sent login_restore(struct link *link, CK_SLOT_ID slot, uint64_t server);

void login_after_fork_child(void);

#endif
