# What the type of a network says of its results, so that code that calls this package is inferred. The work itself runs behind
# a function barrier: it is compiled for the kinds of layers, and not for every network.

"""
    numbers(::Type) -> Type

The type of the numbers that a network of this type computes with, where its type tells; `Any` where it does not. `Union{}` for
what has no numbers.
"""
numbers(::Type) = Any
numbers(::Type{<:Chain{L}}) where {L<:Tuple} = together(L.parameters...)
numbers(::Type{<:Chain{<:NamedTuple{<:Any,L}}}) where {L} = together(L.parameters...)
numbers(::Type{<:Dense{F,M,B}}) where {F,M,B} = together(F, eltype(M), B === Bool ? Union{} : eltype(B))
numbers(::Type{<:SkipConnection{L,F}}) where {L,F} = together(numbers(L), F)
numbers(::Type{<:Embedding{W}}) where {W} = eltype(W)
numbers(T::Type{<:Convolution}) = together(fieldtype(T, :σ), eltype(fieldtype(T, :weight)), Union{})
numbers(T::Type{<:AbstractFloat}) = T
numbers(::Type{Union{}}) = Union{}
numbers(::Type{<:Union{Dropout,Flux.MaxPool,MeanPool,GlobalMeanPool,Flux.AdaptiveMeanPool,Flux.AdaptiveMaxPool}}) = Union{}

# Flux's and NNlib's functions keep the type of numbers; what others do is not known.
function numbers(F::Type{<:Function})
    plain = Base.issingletontype(F) && isempty(F.parameters)
    return plain && Base.moduleroot(parentmodule(F)) in (NNlib, Flux, Base) ? Union{} : Any
end

"the one type of several parts, `Any` where there is none"
function together(parts...)
    types = filter(T -> T !== Union{}, map(numbers, Any[parts...]))
    return isempty(types) ? Union{} : allequal(types) ? first(types) : Any
end

"the type of an array of `N` axes that comes from a model"
@generated function result(::M, ::Val{N}) where {M,N}
    T = numbers(M)
    return T isa DataType && isconcretetype(T) && T <: AbstractFloat ? Array{T,N} : Array{<:Real,N}
end
